-- What saga_read may read: the views, and of tables what has neither states nor messages. Run it as saga_migrate after each `saga migrate`; it is safe to repeat.
-- One view is left out: saga_state_history has states, secrets included.
--
--     psql 'postgresql://saga_migrate@HOST/sagas' --file views.sql
--
-- PostgreSQL cannot grant on views of the future without granting on tables of the future too.

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT viewname FROM pg_views WHERE schemaname = 'public' AND viewowner = current_user
        AND viewname <> 'saga_state_history' LOOP
        EXECUTE format('GRANT SELECT ON public.%I TO saga_read', name);
    END LOOP;
    -- A participant's database has none of these.
    IF to_regclass('public.saga_audit') IS NOT NULL THEN
        GRANT SELECT ON public.saga_audit, public.saga_history TO saga_read;
        GRANT SELECT (id, arrived_at, message_id, reason, saga_id) ON public.saga_unmatched TO saga_read;
    END IF;
    -- Which migrations have run is for saga_migrate to say.
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE '%\_schema\_version' LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON public.%I FROM saga_run', name);
    END LOOP;
END
$$;
