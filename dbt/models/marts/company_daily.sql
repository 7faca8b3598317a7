{{ daily_statistics('company') }}
