{{ config(materialized='view') }}

{{ daily_statistics('company') }}
