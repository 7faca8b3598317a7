{{ config(materialized='view') }}

{{ daily_statistics('ENTITY') }}
