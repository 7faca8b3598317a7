{{ config(materialized='view') }}

{{ daily_statistics('state') }}
