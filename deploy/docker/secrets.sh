#!/bin/sh
# Makes the secrets that docker-compose.yml names, in ./secrets. What is there stays as it is.
#
#   sh deploy/docker/secrets.sh
#
set -eu
umask 022 # processes in containers run as other users, and have to read the files
mkdir -p secrets
chmod 700 secrets # but nobody else on this machine
cd secrets

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { # keep FILE CONTENT
    if [ ! -e "$1" ]; then
        printf '%s\n' "$2" >"$1"
        echo "made secrets/$1"
    fi
}

keep postgres_password "$(random)"
keep database_password "$(random)"
keep database_url "postgresql://ingest:$(cat database_password)@postgres/ingest"
keep redis_password "$(random)"
keep redis_url "redis://:$(cat redis_password)@redis:6379/0"
keep awalchat_secrets "whsec_$(random)"
keep grafana_password "$(random)"
[ -e console_users ] || : >console_users
echo "Put the sender's own secret into secrets/awalchat_secrets, and make a user of the console."
