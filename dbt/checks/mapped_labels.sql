-- Each product's queue on each day, computed independently of the model, to check training sets against.
select
    named.product,
    received_at,
    arg_min(queue, greatest(valid_from - received_at::date, received_at::date - valid_to, 0)) as label
from (select distinct product, received_at from versions) as named
inner join read_csv($seeds || '/queue_by_product.csv') as seed
    on lower(trim(named.product)) = lower(trim(seed.product))
group by all
