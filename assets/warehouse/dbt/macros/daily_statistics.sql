{% macro running_statistics(entity) %}
{#-
    Running counts of an entity, one row per day on which one of them changes.

    A record known on day d is added on d + 1, when the day is over. A record received on day r leaves a window of n
    days on r + 1 + n, and never enters it if it is not known before then. So each day's counts are added once,
    subtracted once per window, and summed over time: exact on every day of change, without a calendar and without
    joining each day to its window. A record counts once, as first known, with the first label that a version of it has.

    For the entities that a build touches, the days before the first touched one stay, and the sums continue from there.
-#}
{%- set windows = [7, 30, 90] -%}
{%- set shares = label_counts() -%}
{%- set counts = ['records', 'texts', 'labels'] + shares + ['records_7d', 'records_30d', 'records_90d'] %}
with

{% if is_incremental() %}
touched as (

    {{ touched(entity) }}

),
{% endif %}

records as (

    select record_id, known_at, received_at, label_known_at, label, {{ entity }} as name, text is not null as has_text
    from {{ ref('fct_records') }}

),

several as (

    select
        record_id,
        min(known_at) as known_at,
        arg_min(label, known_at) filter (label is not null) as label,
        arg_min(label_known_at, known_at) filter (label is not null) as label_known_at
    from records
    where record_id in (select record_id from {{ ref('fct_records') }} where known_until is not null)
    group by record_id

),

first_known as (

    select
        records.name,
        date_trunc('day', records.known_at) as known_on,
        date_trunc('day', records.received_at) as received_on,
        records.has_text,
        case when several.record_id is null then records.label else several.label end as label,
        date_trunc(
            'day', case when several.record_id is null then records.label_known_at else several.label_known_at end
        ) as label_known_on
    from records
    left join several
        on records.record_id = several.record_id
    where (several.known_at is null or several.known_at = records.known_at)
    {% if is_incremental() %}
        and name in (select name from touched)
        and greatest(
            records.known_at,
            records.label_known_at,
            several.label_known_at,
            records.received_at + interval {{ windows | max }} day
        ) + interval 1 day >= (select min(from_day) from touched)
    {% endif %}

),

received as (

    select
        name,
        known_on,
        received_on,
        count(*) as records,
        count(case when has_text then 1 end) as texts
    from first_known
    group by name, known_on, received_on

),

labelled as (

    select
        name,
        label_known_on + interval 1 day as event_timestamp,
        {% for label in var('labels') -%}
        count(case when label = '{{ label }}' then 1 end) as {{ shares[loop.index0] }},
        {% endfor -%}
        count(*) as labels
    from first_known
    where label is not null
    group by name, label_known_on

),

changes as (

    select
        name, known_on + interval 1 day as event_timestamp, records, texts,
        {% for days in windows -%}
        case when received_on + interval {{ days }} day > known_on then records else 0 end as records_{{ days }}d,
        {% endfor -%}
        0 as labels{% for share in shares %}, 0 as {{ share }}{% endfor %}
    from received
    {% for days in windows %}
    union all
    select
        name, received_on + interval {{ days + 1 }} day, 0, 0,
        {% for other in windows %}{{ '-records' if other == days else '0' }}, {% endfor %}
        0{% for share in shares %}, 0{% endfor %}
    from received
    where received_on + interval {{ days }} day > known_on
    {% endfor %}
    union all
    select
        name, event_timestamp, 0, 0,
        {% for days in windows %}0, {% endfor %}
        labels{% for share in shares %}, {{ share }}{% endfor %}
    from labelled

),

daily as (

    select
        name, event_timestamp
        {% for column in counts -%}
        , cast(sum({{ column }}) as bigint) as {{ column }}
        {% endfor %}
    from changes
    {% if is_incremental() %}
    inner join touched using (name)
    where event_timestamp >= from_day
    {% endif %}
    group by name, event_timestamp
    {% if is_incremental() %}
    union all
    select name, event_timestamp, {{ counts | join(', ') }} from {{ this }}
    where (name, event_timestamp) in (
        select (name, max(event_timestamp)) from {{ this }}
        where name in (select name from touched)
        group by name
    )
    {% endif %}

),

running as (

    select
        name, event_timestamp
        {% for column in counts -%}
        , cast(sum({{ column }}) over so_far as bigint) as {{ column }}
        {% endfor %}
    from daily
    window so_far as (
        partition by name order by event_timestamp rows between unbounded preceding and current row
    )

)

select running.* from running
{% if is_incremental() %}
inner join touched using (name)
where event_timestamp >= from_day
{% endif %}
{% endmacro %}


{% macro touched(entity) %}
select name, from_day from {{ ref('touched_statistics') }}
where entity = '{{ entity }}'
{% endmacro %}


{% macro forget_touched(entity) %}
delete from {{ this }} using ({{ touched(entity) }}) as touched
where {{ this }}.name = touched.name and event_timestamp >= from_day
{% endmacro %}


{% macro daily_statistics(entity) %}
{#- What is known about an entity, one row per day on which any of it changes. -#}
{%- set windows = [7, 30, 90] -%}
{%- set shares = label_counts() -%}
select
    name as {{ entity }},
    event_timestamp,
    {% for days in windows -%}
    records_{{ days }}d as {{ entity }}_records_{{ days }}d,
    {% endfor -%}
    cast(texts as double) / records as {{ entity }}_text_share,
    labels as {{ entity }}_labels
    {% for label in var('labels') -%}
    , case when labels = 0 then cast(0 as double) else cast({{ shares[loop.index0] }} as double) / labels end as {{ entity }}_share_{{ label }}
    {% endfor %}
from {{ ref(entity ~ '_running') }}
{% endmacro %}


{% macro label_counts() %}
{#- The columns that count labels, one per label. -#}
{%- set names = [] -%}
{%- for label in var('labels') -%}
{%- do names.append('labels_' ~ label) -%}
{%- endfor -%}
{{ return(names) }}
{% endmacro %}
