#!/bin/sh
# KEY=... SECRET=... signed_curl.sh METHOD URL [BODY]: sends a signed request. The body is JSON.
set -eu
method=$1 url=$2 body=${3-}
address=${url#*://} host=${address%%/*} target=/${address#*/}
path=${target%%\?*} query=''
case $target in
*\?*) query=$(printf %s "${target#*\?}" | tr '&' '\n' | LC_ALL=C sort -s -t= -k1,1 | paste -sd '&' -) ;;
esac
date=$(date +%s) nonce=$(openssl rand -hex 16)
digest=$(printf %s "$body" | openssl dgst -sha256 -r | cut -d ' ' -f 1)
set -- HMAC-SHA256 "$KEY" "$date" "$nonce" "$method" "$path" "$query" "$digest" "host:$host"
[ -z "$body" ] || set -- "$@" content-type:application/json
text=$(printf '%s\n' "$@") # less the end of its last line
signature=$(printf %s "$text" | openssl dgst -sha256 -hmac "$SECRET" -r | cut -d ' ' -f 1)
set -- -H "Authorization: HMAC-SHA256 key=$KEY,date=$date,nonce=$nonce,body=$digest,signature=$signature"
[ -z "$body" ] || set -- "$@" -H 'Content-Type: application/json' --data-raw "$body"
curl -sS -X "$method" "$url" "$@"
