{{ daily_statistics('state') }}
