-- Who may do what in a database of sagas. Run once by an administrator, in that database, before the first `saga migrate`:
--
--     psql --dbname sagas --single-transaction --file roles.sql
--     psql --dbname sagas --command '\password saga_migrate'      and so on for the other two
--
-- saga_migrate   owns the tables: for `saga migrate` alone
-- saga_run       reads and writes rows: orchestrators, services, saga relay, saga dashboard, the commands of operators
-- saga_read      reads the views: people, reports, Grafana
--
-- Tables that a later migration adds are saga_run's to use by themselves; for its views, run views.sql after each migration.
-- The same script serves a participant's database, which has the tables of `saga migrate --only messaging`.
-- Run by a test on a real PostgreSQL.

CREATE ROLE saga_migrate LOGIN;
CREATE ROLE saga_run LOGIN;
CREATE ROLE saga_read LOGIN;

-- Before PostgreSQL 15 everybody may create tables in `public`.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO saga_migrate;
GRANT USAGE ON SCHEMA public TO saga_run, saga_read;

ALTER DEFAULT PRIVILEGES FOR ROLE saga_migrate IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO saga_run;
ALTER DEFAULT PRIVILEGES FOR ROLE saga_migrate IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO saga_run;

-- Whoever reads by hand must not hold up the engine, nor what cleans tables up.
ALTER ROLE saga_read SET default_transaction_read_only = on;
ALTER ROLE saga_read SET statement_timeout = '30s';
ALTER ROLE saga_read SET idle_in_transaction_session_timeout = '30s';
