{{ config(materialized='incremental', incremental_strategy='append') }}

with

objects as (

    select * from {{ new_objects() }} as new_objects

),

records as not materialized (

    select * from {{ new_files('records', record_fields() + ['object_id', 'line', 'content_hash']) }}

),

typed as not materialized (

    select

        ---------- where it was read
        records.object_id,
        records.line,
        objects.seq * 1000000000000 + records.line as position,
        records.content_hash,

        ---------- known before routing
        nullif(trim(records.complaint_id), '') as record_id,
        {{ to_day('records.date_received') }} as received_at,
        cast(objects.known_from as timestamp) as known_from,
        records.narrative as text,
        coalesce(records.company, 'unknown') as company,
        coalesce(records.state, 'unknown') as state,
        records.zip_code,
        records.tags,
        records.channel,

        ---------- outcome
        records.product,
        {{ to_day('records.date_sent_to_company') }} as sent_at,
        records.date_sent_to_company is not null as is_sent,

        {{ csv_line(record_fields()) }} as raw_text

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
            when is_sent and not coalesce({{ possible('sent_at') }}, false) then 'impossible-date'
        end as reason
    from typed

),

-- Only narrow columns are grouped; texts stream past in the last select.
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
        greatest(
            judged.received_at,
            coalesce(judged.known_from, judged.received_at),
            coalesce(judged.sent_at, judged.received_at + interval {{ var('days_to_label') }} day)
        ) as label_known_at,
        judged.product,
        judged.company,
        judged.state,
        judged.zip_code,
        judged.tags,
        judged.channel,
        case when judged.reason is null and judged.position = first_readings.position then judged.text end as text,
        case when judged.reason is not null then judged.raw_text end as raw_text
    from judged
    left join first_readings
        on judged.record_id = first_readings.record_id
        and judged.content_hash = first_readings.content_hash

)

select * from final
