-- depends_on: {{ ref('changed_records') }}
{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='record_id') }}

with

records as not materialized (

    select * from {{ ref('stg_records') }}
    where status = 'valid'
    {% if is_incremental() %}
        and record_id in (select record_id from {{ ref('changed_records') }})
    {% endif %}

),

products as (

    select product, valid_from, valid_to, queue as label from {{ ref('queue_by_product') }}

),

-- Few records have several versions: only those are put in order.
several as (

    select record_id from records
    group by record_id
    having count(*) > 1

),

superseded as (

    select
        position,
        min(known_at) over (
            partition by record_id order by position
            rows between 1 following and unbounded following
        ) as known_until
    from records
    where record_id in (select record_id from several)

),

product_days as (

    select distinct product, received_at from records

),

-- The name's taxonomy in force on the day, else the nearest one that has the name.
ranked as (

    select
        product_days.product,
        product_days.received_at,
        products.label,
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

mapped as (

    select product, received_at, label from ranked
    where nearness = 1

),

final as (

    select
        records.record_id,
        records.known_at,
        superseded.known_until,
        records.received_at,
        records.text,
        records.company,
        records.state,
        records.zip_code,
        records.tags,
        records.channel,
        mapped.label,
        records.label_known_at,
        case when mapped.label is null then 'unmapped-product' end as label_reason,
        records.object_id,
        records.line
    from records
    left join superseded
        on records.position = superseded.position
    left join mapped
        on records.product = mapped.product
        and records.received_at = mapped.received_at
    where superseded.known_until is null
        or superseded.known_until > records.known_at

)

select * from final
