-- depends_on: {{ ref('touched_statistics') }}
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{% if is_incremental() %}{{ forget_touched('ENTITY') }}{% endif %}"
) }}

{{ running_statistics('ENTITY') }}
