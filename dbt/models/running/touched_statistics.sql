{{ config(materialized='table') }}

with

changed as (

    select * from {{ ref('changed_complaints') }}

),

-- A complaint counts as it was first known: a new version changes that only where none was known before it.
first_known as (

    select complaint_id from changed
    group by complaint_id
    having coalesce(min(known_at) filter (is_new) <= min(known_at) filter (not is_new), true)

),

named as (

    select 'company' as entity, company as name, complaint_id, known_at from changed
    union all
    select 'state' as entity, state as name, complaint_id, known_at from changed

)

select
    entity,
    name,
    min(known_at) + interval 1 day as from_day
from named
where complaint_id in (select complaint_id from first_known)
group by entity, name
