{{ config(materialized='table') }}

with

changed as (

    select * from {{ ref('changed_records') }}

),

first_known as (

    select
        record_id,
        min(known_at) as known_at,
        min(known_at) filter (is_new) as new_at,
        min(known_at) filter (not is_new) as old_at
    from changed
    group by record_id

),

-- When the first earlier version with a label became known.
labelled as (

    select record_id, min(known_at) as labelled_at from {{ ref('fct_records') }}
    where label is not null
        and record_id in (select record_id from changed)
        and object_id not in (select object_id from changed where is_new)
    group by record_id

),

-- A record counts as first known, with its first label: a new version changes nothing else.
counted as (

    select
        first_known.record_id,
        case when new_at > old_at then new_at else known_at end as since
    from first_known
    left join labelled
        on first_known.record_id = labelled.record_id
    where coalesce(new_at <= labelled_at, true)

),

named as (

    select cast(null as varchar) as entity, cast(null as varchar) as name, record_id from changed where false
    {% for entity in var('entities') -%}
    union all
    select '{{ entity }}', {{ entity }}, record_id from changed
    {% endfor %}

)

select
    named.entity,
    named.name,
    min(date_trunc('day', counted.since)) + interval 1 day as from_day
from named
inner join counted
    on named.record_id = counted.record_id
group by named.entity, named.name
