-- As of any instant at most one version of a record is visible.

with spans as (

    select
        record_id,
        known_until,
        lead(known_at) over (partition by record_id order by known_at) as next_known_at
    from {{ ref('fct_records') }}
    where record_id in (select record_id from {{ ref('fct_records') }} where known_until is not null)

)

select record_id, known_until, next_known_at
from spans
where known_until is distinct from next_known_at
