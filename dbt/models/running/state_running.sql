-- depends_on: {{ ref('touched_statistics') }}
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{% if is_incremental() %}{{ forget_touched('state') }}{% endif %}"
) }}

{{ running_statistics('state') }}
