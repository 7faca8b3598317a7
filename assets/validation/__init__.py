"""Nothing is published that was not audited: Great Expectations over the staged marts, then one atomic move."""
