-- What a gateway's role needs on a node, and nothing else. `pgpact migrate --grant --admin ROLE` runs it; so does psql, as a
-- superuser (or the owner of schema pgpact who may grant the clients' roles) and after `pgpact migrate`:
--
--     SET pgpact.role = 'pgpact';
--     SET pgpact.clients = 'alice,bob';   -- the roles that clients log in with
--     \i participant.sql
--
-- It can be run again, and has to be after a migration and for new clients. What clients may do with their tables is theirs:
-- GRANT it to their roles.
DO $$
DECLARE
    gateway name := current_setting('pgpact.role');
    how text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN ' WITH INHERIT FALSE, SET TRUE' ELSE '' END;
    object record;
    client name;
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
    -- Anybody may ask pgpact.bucket() where a key belongs; the tables stay closed.
    GRANT USAGE ON SCHEMA pgpact TO PUBLIC;
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA pgpact TO %I', gateway);
    EXECUTE format('GRANT INSERT, DELETE ON pgpact.branches TO %I', gateway);

    -- The gateway acts as its clients' roles (SET ROLE), and has none of their privileges as itself.
    EXECUTE format('ALTER ROLE %I NOINHERIT', gateway);
    FOREACH client IN ARRAY coalesce(string_to_array(nullif(current_setting('pgpact.clients', true), ''), ','), '{}') LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = client AND NOT rolsuper AND rolname <> gateway) THEN
            EXECUTE format('GRANT %I TO %I', client, gateway) || how;
        END IF;
    END LOOP;
END
$$;
