"""The AWS adapters: the only importers of boto3, independent of Slack and handlers; any front end may use them.

Importing these modules imports no SDK: boto3 costs a quarter of a second, and is imported at the first call.
"""
