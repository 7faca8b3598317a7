-- What is decided after routing may not be a column here: the columns are those that the model names, and no others.
{%- set allowed = graph.nodes['model.evergreen.fct_records'].columns.keys() | list if execute else [] %}

select column_name
from information_schema.columns
where table_name = '{{ ref("fct_records").identifier }}'
    and (
        column_name not in ('{{ allowed | join("', '") }}')
        or column_name in (
            'product', 'sub_product', 'issue', 'sub_issue', 'company_public_response', 'company_response',
            'timely_response', 'disputed', 'consent', 'date_sent_to_company'
        )
    )
