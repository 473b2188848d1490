"""The shared AWS module: the only importer of boto3. It knows neither Slack nor handlers; any front end may use it."""
