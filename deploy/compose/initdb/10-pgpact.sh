#!/bin/bash
# Runs once, when a server of docker-compose.yml is new: pgpact's role, which is no superuser, and the database that it owns.
# psql quotes the password; it substitutes only in text that it reads, not in --command.
set -euo pipefail
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres --set password="$NODE_PASSWORD" <<'SQL'
CREATE ROLE pgpact LOGIN PASSWORD :'password';
CREATE DATABASE pgpact OWNER pgpact ENCODING 'UTF8' TEMPLATE template0;
SQL
