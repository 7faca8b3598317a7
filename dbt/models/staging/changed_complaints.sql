{{ config(materialized='table') }}
{%- set counted = counted_objects() %}

with

complaints as (

    select complaint_id, position, object_id, known_at, company, state from {{ ref('stg_complaints') }}
    where status = 'valid'

),

brought as (

    select distinct complaint_id from complaints
    {% if counted %}
    where object_id not in (select object_id from {{ counted }})
    {% else %}
    where false
    {% endif %}

)

select
    complaint_id,
    position,
    {{ 'object_id not in (select object_id from ' ~ counted ~ ')' if counted else 'true' }} as is_new,
    known_at,
    company,
    state
from complaints
where complaint_id in (select complaint_id from brought)
