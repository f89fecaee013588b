#!/bin/sh
# Runs once, when the database is made: the pipeline's role is no superuser and owns one database.
set -eu
psql --quiet --set ON_ERROR_STOP=1 --username postgres --dbname postgres <<'SQL'
\set password `cat /run/secrets/database_password`
CREATE ROLE ingest LOGIN PASSWORD :'password';
CREATE DATABASE ingest OWNER ingest ENCODING 'UTF8' TEMPLATE template0;
SQL
