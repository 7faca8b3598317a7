{{ config(materialized='table') }}

with

changed as (

    select * from {{ ref('changed_records') }}

),

-- A record counts as it was first known: a new version changes that only where none was known before it.
first_known as (

    select record_id from changed
    group by record_id
    having coalesce(min(known_at) filter (is_new) <= min(known_at) filter (not is_new), true)

),

named as (

    select 'company' as entity, company as name, record_id, known_at from changed
    union all
    select 'state' as entity, state as name, record_id, known_at from changed

)

select
    entity,
    name,
    min(known_at) + interval 1 day as from_day
from named
where record_id in (select record_id from first_known)
group by entity, name
