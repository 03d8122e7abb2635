-- What a gateway's role needs in the coordinator's database, and nothing else. `pgpact migrate --grant --admin ROLE` runs it;
-- so does psql, as a superuser and after `pgpact migrate`:
--
--     SET pgpact.role = 'pgpact';
--     \i coordinator.sql
--
-- It can be run again, and has to be after a migration.
DO $$
DECLARE
    gateway name := current_setting('pgpact.role');
    object record;
BEGIN
    -- What an earlier migration made as the gateway's own belongs to whoever runs this: an owner may do everything.
    FOR object IN SELECT c.oid::regclass AS name FROM pg_class c
        WHERE c.relnamespace = 'pgpact'::regnamespace AND c.relkind = 'r' AND pg_get_userbyid(c.relowner) = gateway
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO CURRENT_USER', object.name);
    END LOOP;
    FOR object IN SELECT p.oid::regprocedure AS name FROM pg_proc p
        WHERE p.pronamespace = 'pgpact'::regnamespace AND pg_get_userbyid(p.proowner) = gateway
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO CURRENT_USER', object.name);
    END LOOP;
    ALTER SCHEMA pgpact OWNER TO CURRENT_USER;

    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), gateway);
    EXECUTE format('GRANT USAGE ON SCHEMA pgpact TO %I', gateway);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA pgpact TO %I', gateway);
    -- Decisions are made, finished and purged; gateways come and go, and so does what they wait for; nodes are remembered
    -- as they were last seen.
    EXECUTE format('GRANT INSERT, UPDATE, DELETE ON pgpact.transactions, pgpact.gateways, pgpact.lock_waits, '
        'pgpact.keys_whole, pgpact.proven_keys TO %I', gateway);
    EXECUTE format('GRANT INSERT, UPDATE ON pgpact.nodes TO %I', gateway);
    EXECUTE format('GRANT DELETE ON pgpact.gate TO %I', gateway); -- it is empty: this is for the lock

    -- For `auth_query: SELECT pgpact_auth.verifier($1)`. Only a superuser may read pg_authid, so the function is one's; it
    -- tells the gateway, and nobody else, the verifiers of roles that can log in. Superusers and replication are left out:
    -- they have no business behind a gateway.
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        CREATE SCHEMA IF NOT EXISTS pgpact_auth;
        CREATE OR REPLACE FUNCTION pgpact_auth.verifier(username text) RETURNS text
            LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
            SELECT rolpassword FROM pg_catalog.pg_authid
            WHERE rolname = username AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
              AND (rolvaliduntil IS NULL OR rolvaliduntil > now()) AND rolpassword LIKE 'SCRAM-SHA-256$%'
        $f$;
        REVOKE ALL ON SCHEMA pgpact_auth FROM PUBLIC;
        REVOKE ALL ON FUNCTION pgpact_auth.verifier(text) FROM PUBLIC;
        EXECUTE format('GRANT USAGE ON SCHEMA pgpact_auth TO %I', gateway);
        EXECUTE format('GRANT EXECUTE ON FUNCTION pgpact_auth.verifier(text) TO %I', gateway);
    END IF;
END
$$;
