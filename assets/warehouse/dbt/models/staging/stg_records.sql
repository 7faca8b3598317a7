{{ config(materialized='incremental', incremental_strategy='append') }}
{%- set label_known = var('label_known') %}

with

objects as (

    select * from {{ new_objects() }} as new_objects

),

records as not materialized (

    select * from {{ new_files('records', var('fields') + ['object_id', 'line', 'content_hash']) }}

),

typed as not materialized (

    select

        ---------- where it was read
        records.object_id,
        records.line,
        objects.seq * 1000000000000 + records.line as position,
        records.content_hash,

        ---------- known when it came in
        nullif(trim(records.{{ var('record_id') }}), '') as record_id,
        {{ to_timestamp('records.' ~ var('received').field, var('received')) }} as received_at,
        objects.known_from,
        {{ joined_text() }} as text,
        {% for entity in var('entities') -%}
        coalesce(records.{{ entity }}, 'unknown') as {{ entity }},
        {% endfor -%}
        {% for field in var('request') -%}
        records.{{ field }},
        {% endfor %}

        ---------- outcome
        {% for field in var('label_fields') -%}
        records.{{ field }},
        {% endfor -%}
        {% if label_known.field -%}
        -- A time that is given but cannot be read counts as later than any possible time.
        case when records.{{ label_known.field }} is not null then coalesce(
            {{ to_timestamp('records.' ~ label_known.field, label_known) }}, timestamp 'infinity'
        ) end as label_known_at,
        {% else -%}
        cast(null as timestamp) as label_known_at,
        {% endif %}
        {{ csv_line(var('fields')) }} as raw_text

    from records
    inner join objects
        on records.object_id = objects.object_id

),

judged as not materialized (

    select
        *,
        case
            when record_id is null then 'empty-record-id'
            when not coalesce({{ possible('received_at') }}, false) then 'impossible-date'
            when not ({{ possible('label_known_at') }}) then 'impossible-date'
        end as reason
    from typed

),

-- Only narrow columns are grouped; texts are read only in the last select.
first_readings as (

    select record_id, content_hash, min(position) as position
    from (
        select record_id, content_hash, position from judged where reason is null
        {% if is_incremental() %}
        union all
        select record_id, content_hash, position from {{ this }}
        where status = 'valid'
            and record_id in (select record_id from judged where reason is null)
        {% endif %}
    ) as readings
    group by record_id, content_hash

),

final as (

    select
        judged.object_id,
        judged.line,
        judged.position,
        judged.content_hash,
        judged.record_id,
        case
            when judged.reason is not null then 'quarantined'
            when judged.position > first_readings.position then 'duplicate'
            else 'valid'
        end as status,
        judged.reason,
        judged.received_at,
        greatest(judged.received_at, coalesce(judged.known_from, judged.received_at)) as known_at,
        case when {{ has_label_value('judged') }} and {{ label_instant() }} is not null then greatest(
            judged.received_at,
            coalesce(judged.known_from, judged.received_at),
            {{ label_instant() }}
        ) end as label_known_at,
        {% for field in var('label_fields') + var('entities') + var('request') -%}
        judged.{{ field }},
        {% endfor -%}
        case when judged.reason is null and judged.position = first_readings.position then judged.text end as text,
        case when judged.reason is not null then judged.raw_text end as raw_text
    from judged
    left join first_readings
        on judged.record_id = first_readings.record_id
        and judged.content_hash = first_readings.content_hash

)

select * from final
