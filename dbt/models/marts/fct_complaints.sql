-- depends_on: {{ ref('changed_complaints') }}
{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='complaint_id') }}

with

complaints as not materialized (

    select * from {{ ref('stg_complaints') }}
    where status = 'valid'
    {% if is_incremental() %}
        and complaint_id in (select complaint_id from {{ ref('changed_complaints') }})
    {% endif %}

),

products as (

    select * from {{ ref('queue_by_product') }}

),

-- Few complaints have several versions: only those are put in order.
several as (

    select complaint_id from complaints
    group by complaint_id
    having count(*) > 1

),

superseded as (

    select
        position,
        min(known_at) over (
            partition by complaint_id order by position
            rows between 1 following and unbounded following
        ) as known_until
    from complaints
    where complaint_id in (select complaint_id from several)

),

product_days as (

    select distinct product, received_at from complaints

),

-- The name's taxonomy in force on the day, else the nearest one that has the name.
ranked as (

    select
        product_days.product,
        product_days.received_at,
        products.queue,
        row_number() over (
            partition by product_days.product, product_days.received_at
            order by
                greatest(
                    products.valid_from - cast(product_days.received_at as date),
                    cast(product_days.received_at as date) - products.valid_to,
                    0
                ),
                products.valid_from
        ) as nearness
    from product_days
    inner join products
        on lower(trim(product_days.product)) = lower(trim(products.product))

),

queues as (

    select product, received_at, queue from ranked
    where nearness = 1

),

final as (

    select
        complaints.complaint_id,
        complaints.known_at,
        superseded.known_until,
        complaints.received_at,
        complaints.narrative,
        complaints.company,
        complaints.state,
        complaints.zip_code,
        complaints.tags,
        complaints.channel,
        queues.queue,
        complaints.label_known_at,
        case when queues.queue is null then 'unmapped-product' end as label_reason,
        complaints.object_id,
        complaints.line
    from complaints
    left join superseded
        on complaints.position = superseded.position
    left join queues
        on complaints.product = queues.product
        and complaints.received_at = queues.received_at
    where superseded.known_until is null
        or superseded.known_until > complaints.known_at

)

select * from final
