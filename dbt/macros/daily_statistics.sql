{% macro running_statistics(entity) %}
{#-
    Running counts of an entity, one row per day on which one of them changes.

    A complaint that is known on day d joins on d + 1, when the day is over. One received on day r leaves a window of n
    days on r + 1 + n, and never enters it when it is known no sooner. So each day's counts are added once, taken away
    once per window, and summed over time: exact on every day of change, without a calendar and without a join of each
    day to its window. A complaint counts once, as first known.

    Of the entities that a build touches, the days before the first touched one stay, and the sums go on from there.
-#}
{%- set windows = [7, 30, 90] -%}
{%- set queues = var('queues') -%}
{%- set counts = ['complaints', 'narratives', 'labels'] + queues + ['complaints_7d', 'complaints_30d', 'complaints_90d'] %}
with

{% if is_incremental() %}
touched as (

    {{ touched(entity) }}

),
{% endif %}

complaints as (

    select complaint_id, known_at, received_at, label_known_at, queue, {{ entity }}, narrative is not null as has_narrative
    from {{ ref('fct_complaints') }}

),

several as (

    select complaint_id, min(known_at) as known_at from complaints
    where complaint_id in (select complaint_id from {{ ref('fct_complaints') }} where known_until is not null)
    group by complaint_id

),

first_known as (

    select complaints.* from complaints
    left join several
        on complaints.complaint_id = several.complaint_id
    where (several.known_at is null or several.known_at = complaints.known_at)
    {% if is_incremental() %}
        and {{ entity }} in (select {{ entity }} from touched)
        and greatest(complaints.known_at, label_known_at, received_at + interval {{ windows | max }} day) + interval 1 day
            >= (select min(from_day) from touched)
    {% endif %}

),

received as (

    select
        {{ entity }},
        known_at,
        received_at,
        count(*) as complaints,
        count(case when has_narrative then 1 end) as narratives
    from first_known
    group by {{ entity }}, known_at, received_at

),

labelled as (

    select
        {{ entity }},
        label_known_at + interval 1 day as event_timestamp,
        {% for queue in queues -%}
        count(case when queue = '{{ queue }}' then 1 end) as {{ queue }},
        {% endfor -%}
        count(*) as labels
    from first_known
    where queue is not null
    group by {{ entity }}, label_known_at

),

changes as (

    select
        {{ entity }}, known_at + interval 1 day as event_timestamp, complaints, narratives,
        {% for days in windows -%}
        case when received_at + interval {{ days }} day > known_at then complaints else 0 end as complaints_{{ days }}d,
        {% endfor -%}
        0 as labels{% for queue in queues %}, 0 as {{ queue }}{% endfor %}
    from received
    {% for days in windows %}
    union all
    select
        {{ entity }}, received_at + interval {{ days + 1 }} day, 0, 0,
        {% for other in windows %}{{ '-complaints' if other == days else '0' }}, {% endfor %}
        0{% for queue in queues %}, 0{% endfor %}
    from received
    where received_at + interval {{ days }} day > known_at
    {% endfor %}
    union all
    select
        {{ entity }}, event_timestamp, 0, 0,
        {% for days in windows %}0, {% endfor %}
        labels{% for queue in queues %}, {{ queue }}{% endfor %}
    from labelled

),

daily as (

    select
        {{ entity }}, event_timestamp
        {% for column in counts -%}
        , cast(sum({{ column }}) as bigint) as {{ column }}
        {% endfor %}
    from changes
    {% if is_incremental() %}
    inner join touched using ({{ entity }})
    where event_timestamp >= from_day
    {% endif %}
    group by {{ entity }}, event_timestamp
    {% if is_incremental() %}
    union all
    select {{ entity }}, event_timestamp, {{ counts | join(', ') }} from {{ this }}
    where ({{ entity }}, event_timestamp) in (
        select ({{ entity }}, max(event_timestamp)) from {{ this }}
        where {{ entity }} in (select {{ entity }} from touched)
        group by {{ entity }}
    )
    {% endif %}

),

running as (

    select
        {{ entity }}, event_timestamp
        {% for column in counts -%}
        , cast(sum({{ column }}) over so_far as bigint) as {{ column }}
        {% endfor %}
    from daily
    window so_far as (
        partition by {{ entity }} order by event_timestamp rows between unbounded preceding and current row
    )

)

select running.* from running
{% if is_incremental() %}
inner join touched using ({{ entity }})
where event_timestamp >= from_day
{% endif %}
{% endmacro %}


{% macro touched(entity) %}
select name as {{ entity }}, from_day from {{ ref('touched_statistics') }}
where entity = '{{ entity }}'
{% endmacro %}


{% macro forget_touched(entity) %}
delete from {{ this }} using ({{ touched(entity) }}) as touched
where {{ this }}.{{ entity }} = touched.{{ entity }} and event_timestamp >= from_day
{% endmacro %}


{% macro daily_statistics(entity) %}
{#- What is known of an entity, one row per day on which any of it changes. -#}
{%- set windows = [7, 30, 90] -%}
{%- set queues = var('queues') -%}
select
    {{ entity }},
    event_timestamp,
    {% for days in windows -%}
    complaints_{{ days }}d as {{ entity }}_complaints_{{ days }}d,
    {% endfor -%}
    cast(narratives as double) / complaints as {{ entity }}_narrative_share,
    labels as {{ entity }}_labels
    {% for queue in queues -%}
    , case when labels = 0 then cast(0 as double) else cast({{ queue }} as double) / labels end as {{ entity }}_share_{{ queue }}
    {% endfor %}
from {{ ref(entity ~ '_running') }}
{% endmacro %}
