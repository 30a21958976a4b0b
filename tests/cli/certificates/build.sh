#!/bin/sh
# Writes the certificates of the tests anew, valid for 100 years: an authority; a node's for 127.0.0.1 and localhost, one
# of another name, a client's; and the client's key with a passphrase. No key here protects anything.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

key "$work/authority.key"
openssl req -x509 -new -key "$work/authority.key" -subj "/CN=authority of the tests" -days 36500 -out authority.pem \
  -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign

sign() { # name, extended key usage, alternative names
  key "$work/$1.key"
  openssl req -new -key "$work/$1.key" -subj "/CN=$1 of the tests" -out "$work/$1.csr"
  {
    echo "basicConstraints=critical,CA:false"
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=$2"
    echo "subjectAltName=$3"
    echo "subjectKeyIdentifier=hash"
    echo "authorityKeyIdentifier=keyid"
  } > "$work/$1.extensions"
  openssl x509 -req -in "$work/$1.csr" -CA authority.pem -CAkey "$work/authority.key" -days 36500 \
    -extfile "$work/$1.extensions" -out "$work/$1.pem" 2> /dev/null
  cat "$work/$1.pem" "$work/$1.key" > "$1.pem"
}

sign node serverAuth IP:127.0.0.1,DNS:localhost
sign other_node serverAuth DNS:other.invalid
sign client clientAuth DNS:client.invalid
openssl pkey -in "$work/client.key" -aes-256-cbc -passout pass:locked -out locked.key
