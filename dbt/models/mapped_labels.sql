with

product_days as (

    select product, received_at from {{ ref('label_values') }}

),

products as (

    select product, valid_from, valid_to, queue as label from {{ ref('queue_by_product') }}

),

-- By the taxonomy in force on the day if it has the name, else by the nearest one that has it.
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

)

select product, received_at, label from ranked
where nearness = 1
