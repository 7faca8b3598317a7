-- As of any instant at most one version of a complaint is visible.

with spans as (

    select
        complaint_id,
        known_until,
        lead(known_at) over (partition by complaint_id order by known_at) as next_known_at
    from {{ ref('fct_complaints') }}
    where complaint_id in (select complaint_id from {{ ref('fct_complaints') }} where known_until is not null)

)

select complaint_id, known_until, next_known_at
from spans
where known_until is distinct from next_known_at
