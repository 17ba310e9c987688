#!/bin/bash
# Makes the certificates of the table in ../../tests/kinds.rs with OpenSSL, and asks a genuine etcd about each: make.sh ETCD ETCDCTL
#
# A line of the answers: certificate, whether etcd starts with it and serves a client that trusts its authority, whether it takes it of a client.
set -eu
here=$(dirname "$(readlink -f "$0")")
etcd=$1 ctl=$2
cd "$here"
rm -f -- *.crt *.key *.crl answers.txt
days=36500

key() { # name, kind
    case $2 in
    rsa*) openssl genrsa -out "$1.key" "${2#rsa}" ;;
    ed25519) openssl genpkey -algorithm ED25519 -out "$1.key" ;;
    p*) openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:P-${2#p}" -out "$1.key" ;;
    esac 2> /dev/null
}

authority() { # name, kind, version
    key "$1" "$2"
    if [ "$3" = 3 ]; then
        openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days $days -out "$1.crt"
    else
        openssl req -new -key "$1.key" -subj "/CN=$1" |
            openssl x509 -req -signkey "$1.key" -days $days -out "$1.crt" 2> /dev/null
    fi
}

certificate() { # name, kind, version, usage or -, authority
    key "$1" "$2"
    extensions=()
    if [ "$3" = 3 ]; then
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' > extensions
        [ "$4" = - ] || printf 'extendedKeyUsage=%s\n' "$4" >> extensions
        extensions=(-extfile extensions)
    fi
    openssl req -new -key "$1.key" -subj "/CN=$1" |
        openssl x509 -req -CA "$5.crt" -CAkey "$5.key" -set_serial "0x$(openssl rand -hex 8)" -days $days \
            "${extensions[@]}" -out "$1.crt" 2> /dev/null
    rm -f extensions
}

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Starts etcd with a certificate and an authority of clients, waits at most 5 s for it, and says whether it took a put.
asked() { # server's certificate, its authority, client's certificate, its authority
    local dir client peer answer=no
    dir=$(mktemp -d) client=$(port) peer=$(port)
    "$etcd" --data-dir "$dir" --listen-client-urls "https://127.0.0.1:$client" --advertise-client-urls "https://127.0.0.1:$client" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
        --initial-cluster "default=http://127.0.0.1:$peer" --cert-file "$1.crt" --key-file "$1.key" --trusted-ca-file "$4.crt" \
        --client-cert-auth > "$dir.log" 2>&1 &
    local pid=$!
    for _ in $(seq 50); do
        grep -q 'ready to serve client requests' "$dir.log" && break
        kill -0 $pid 2> /dev/null || break
        sleep 0.1
    done
    "$ctl" --endpoints "https://127.0.0.1:$client" --cacert "$2.crt" --cert "$3.crt" --key "$3.key" --command-timeout 2s \
        --dial-timeout 2s put a b > /dev/null 2>&1 && answer=yes
    kill $pid 2> /dev/null || true
    wait $pid 2> /dev/null || true
    rm -rf "$dir" "$dir.log"
    echo $answer
}

authority ca-p256 p256 3
authority ca-p521 p521 3
authority ca-rsa1024 rsa1024 3
authority ca-rsa2048 rsa2048 3
authority ca-v1 p256 1
kinds="p256 p384 p521 ed25519 rsa1024 rsa2048 rsa4096"
certificate good p256 3 - ca-p256
names=()
for kind in $kinds; do
    for version in 1 3; do
        certificate "$kind-v$version" "$kind" $version - ca-p256
        names+=("$kind-v$version ca-p256")
    done
done
for usage in serverAuth clientAuth anyExtendedKeyUsage codeSigning; do
    certificate "$usage" p256 3 $usage ca-p256
    names+=("$usage ca-p256")
done
for ca in ca-p521 ca-rsa1024 ca-rsa2048 ca-v1; do
    for version in 1 3; do
        certificate "of-$ca-v$version" p256 $version - $ca
        names+=("of-$ca-v$version $ca")
    done
done
# What ca-p256 has revoked.
work=$(mktemp -d)
touch "$work/index.txt"
echo 01 > "$work/number"
printf '[ca]\ndefault_ca=c\n[c]\ndatabase=%s/index.txt\ncrlnumber=%s/number\ndefault_md=sha256\n[e]\n%s\n' \
    "$work" "$work" authorityKeyIdentifier=keyid:always > "$work/ca.cnf"
by=(openssl ca -config "$work/ca.cnf" -cert ca-p256.crt -keyfile ca-p256.key)
"${by[@]}" -revoke p256-v1.crt 2> /dev/null
"${by[@]}" -gencrl -crldays $days -crlexts e -out revoked.crl 2> /dev/null
rm -rf "$work"

for entry in "${names[@]}"; do
    read -r name ca <<< "$entry"
    echo "$name $ca server=$(asked "$name" "$ca" good ca-p256) client=$(asked good ca-p256 "$name" "$ca")" | tee -a answers.txt
done
