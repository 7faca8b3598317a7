-- New objects are those not counted here, so this is written after everything that asks which are new.
-- depends_on: {{ ref('changed_records') }}, {{ ref('quarantined_records') }}
{{ config(materialized='incremental', incremental_strategy='append') }}

with

objects as (

    select * from {{ new_objects() }} as new_objects

),

statuses as (

    select
        object_id,
        count(case when status = 'valid' then 1 end) as valid,
        count(case when status = 'quarantined' then 1 end) as quarantined,
        count(case when status = 'duplicate' then 1 end) as duplicate
    from {{ ref('stg_records') }}
    {% if is_incremental() %}
    where object_id not in (select object_id from {{ this }})
    {% endif %}
    group by object_id

),

rejects as (

    select object_id, count(*) as rejects
    from {{ new_files('rejects', ['object_id', 'line', 'reason', 'raw_text']) }}
    group by object_id

)

select
    coalesce(objects.object_id, statuses.object_id) as object_id,
    objects.key as object_key,
    case when objects.withdrawn is null then coalesce(objects.landed, 0) else 0 end as landed,
    coalesce(statuses.valid, 0) as valid,
    coalesce(statuses.quarantined, 0) + coalesce(rejects.rejects, 0) as quarantined,
    coalesce(statuses.duplicate, 0) as duplicate,
    case when objects.withdrawn is null then 0 else objects.landed end as withdrawn,
    objects.error
from objects
full outer join statuses
    on objects.object_id = statuses.object_id
left join rejects
    on objects.object_id = rejects.object_id
