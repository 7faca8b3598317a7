{{ config(materialized='view') }}

select
    record_id,
    known_at,
    known_until,
    label,
    label_known_at
from {{ ref('fct_records') }}
where label is not null
