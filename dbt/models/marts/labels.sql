{{ config(materialized='view') }}

select
    complaint_id,
    known_at,
    known_until,
    queue,
    label_known_at
from {{ ref('fct_complaints') }}
where queue is not null
