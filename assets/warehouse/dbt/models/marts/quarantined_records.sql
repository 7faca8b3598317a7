{{ config(materialized='incremental', incremental_strategy='append') }}

with

objects as (

    select * from {{ new_objects() }} as new_objects

),

unreadable as (

    select object_id, line, reason, raw_text from {{ new_files('rejects', ['object_id', 'line', 'reason', 'raw_text']) }}

),

impossible as (

    select object_id, line, reason, raw_text from {{ ref('stg_records') }}
    where status = 'quarantined'

),

unioned as (

    select * from unreadable
    union all
    select * from impossible

)

select
    objects.key as object_key,
    unioned.line,
    unioned.reason,
    unioned.raw_text,
    cast(objects.known_from as date) as known_from
from unioned
inner join objects
    on unioned.object_id = objects.object_id
