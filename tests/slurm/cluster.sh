#!/usr/bin/env bash
# A SLURM of two nodes on this one machine, for tests: slurmctld, two slurmd, munge, a GPU that is
# none, a partition that preempts the others, and, unless told otherwise, accounting by slurmdbd and
# MariaDB. Needs root on Debian; it writes /etc/slurm, so use a container or a machine that can be
# thrown away.
#
#   cluster.sh install | start [accounting|plain] | stop | kill-node n1 | start-node n1
#   cluster.sh stop-controller | start-controller
set -euo pipefail

DIR=${HYDROPS_SLURM_DIR:-/var/tmp/hydrops-slurm}
# slurmdbd looks for MariaDB at this socket only.
SOCKET=/run/mysqld/mysqld.sock
MUNGE_PID=/run/munge/munged.pid
MARK="# written by the tests of hydrops"

say() { echo "slurm: $*" >&2; }

die() {
    say "$*"
    exit 1
}

wait_for() { # seconds, command: until it succeeds
    local left=$1
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { say "gave up waiting for: $*"; return 1; }
        sleep 1
    done
}

running() { # pid file
    [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null
}

end() { # pid file: of a daemon that is asked to stop and, if it does not, killed
    running "$1" || return 0
    local pid
    pid=$(cat "$1")
    kill "$pid"
    wait_for 20 sh -c "! kill -0 $pid" || kill -9 "$pid" 2>/dev/null || true
    rm -f "$1"
}

install() {
    [ "$(id -u)" = 0 ] || die "these tests start SLURM's daemons and write /etc/slurm: run them as" \
        "root, on a machine or in a container that can be thrown away"
    if command -v slurmctld >/dev/null && command -v slurmdbd >/dev/null &&
        command -v mariadbd >/dev/null; then
        return
    fi
    command -v apt-get >/dev/null || die "these tests install Debian's packages of SLURM, and this" \
        "machine has no apt-get: run them in a container of Debian"
    export DEBIAN_FRONTEND=noninteractive
    # Daemons are started by this script, never by the packages.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    apt-get update -qq
    apt-get install -y -qq slurm-wlm slurmdbd munge mariadb-server >/dev/null
    rm -f /usr/sbin/policy-rc.d
}

start_munge() {
    if [ ! -s /etc/munge/munge.key ]; then
        mkdir -p /etc/munge
        head -c 1024 /dev/urandom >/etc/munge/munge.key
    fi
    mkdir -p /run/munge /var/log/munge /var/lib/munge
    chown -R munge:munge /etc/munge /run/munge /var/log/munge /var/lib/munge
    chmod 400 /etc/munge/munge.key
    running "$MUNGE_PID" || su -s /bin/sh munge -c /usr/sbin/munged
    wait_for 10 sh -c 'munge -n | unmunge'
}

start_accounting() {
    mkdir -p /run/mysqld "$DIR/mysql"
    chown -R mysql:mysql /run/mysqld "$DIR/mysql"
    [ -d "$DIR/mysql/mysql" ] || mariadb-install-db --user=mysql --datadir="$DIR/mysql" \
        --skip-test-db >/dev/null
    mariadbd --no-defaults --user=mysql --datadir="$DIR/mysql" --socket="$SOCKET" \
        --skip-networking --innodb-buffer-pool-size=64M --pid-file="$DIR/mysql/server.pid" \
        >"$DIR/mysql.log" 2>&1 &
    wait_for 30 mariadb --socket="$SOCKET" -e 'SELECT 1'
    mariadb --socket="$SOCKET" -e "CREATE DATABASE IF NOT EXISTS slurm;
        CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'slurm';
        GRANT ALL ON slurm.* TO slurm@localhost;"
    cat >/etc/slurm/slurmdbd.conf <<EOF
$MARK
AuthType=auth/munge
DbdHost=localhost
SlurmUser=root
LogFile=$DIR/slurmdbd.log
PidFile=$DIR/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
EOF
    chmod 600 /etc/slurm/slurmdbd.conf
    slurmdbd
    wait_for 30 sacctmgr -n show cluster
    sacctmgr -i add cluster hydrops >/dev/null 2>&1 || true
    sacctmgr -i add account mri cluster=hydrops >/dev/null 2>&1 || true
    sacctmgr -i add user root account=mri cluster=hydrops >/dev/null 2>&1 || true
}

configure() { # accounting | plain
    mkdir -p /etc/slurm "$DIR/state"
    if [ -f /etc/slurm/slurm.conf ] && ! grep -q "$MARK" /etc/slurm/slurm.conf; then
        die "/etc/slurm/slurm.conf is somebody else's; not touched"
    fi
    [ -e "$DIR/fakegpu0" ] || mknod "$DIR/fakegpu0" c 1 3
    local memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 / 2 - 500))
    local accounting="AccountingStorageType=accounting_storage/none"
    [ "$1" = plain ] || accounting="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStorageEnforce=associations"
    cat >/etc/slurm/slurm.conf <<EOF
$MARK
ClusterName=hydrops
SlurmctldHost=$(hostname)(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool.%n
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.%n.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_interval=5
GresTypes=gpu
$accounting
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17001 CPUs=2 RealMemory=$memory Gres=gpu:1
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17002 CPUs=2 RealMemory=$memory
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=120 State=UP
PartitionName=gpu Nodes=n1 MaxTime=120 State=UP
PartitionName=urgent Nodes=n1,n2 MaxTime=120 PriorityTier=10 PreemptMode=OFF State=UP
EOF
    echo "NodeName=n1 Name=gpu File=$DIR/fakegpu0" >/etc/slurm/gres.conf
}

start_node() {
    mkdir -p "$DIR/spool.$1"
    slurmd -N "$1"
}

start() { # accounting | plain; a cluster that runs is stopped and forgotten
    stop
    mkdir -p "$DIR" /etc/slurm
    start_munge
    configure "$1"
    [ "$1" = plain ] || start_accounting
    slurmctld
    for node in n1 n2; do start_node "$node"; done
    wait_for 60 sh -c '[ "$(sinfo -h -N -p cpu -t idle -o %N | sort -u | wc -l)" = 2 ]'
    say "two nodes are idle"
}

# The processes of a node's jobs, and the daemon above each job.
processes_of() {
    local environ pid parent
    for environ in /proc/[0-9]*/environ; do
        pid=$(basename "$(dirname "$environ")")
        tr '\0' '\n' 2>/dev/null <"$environ" | grep -qx "SLURMD_NODENAME=$1" || continue
        echo "$pid"
        parent=$(awk '/^PPid/ {print $2}' "/proc/$pid/status" 2>/dev/null) || continue
        ! grep -qx slurmstepd "/proc/$parent/comm" 2>/dev/null || echo "$parent"
    done | sort -u
}

kill_node() { # as if the machine had lost its power
    kill -9 "$(cat "$DIR/slurmd.$1.pid")"
    processes_of "$1" | xargs -r kill -9 2>/dev/null || true
}

stop() {
    for node in n1 n2; do processes_of "$node" | xargs -r kill -9 2>/dev/null || true; done
    for daemon in slurmd.n1 slurmd.n2 slurmctld slurmdbd mysql/server; do end "$DIR/$daemon.pid"; done
    end "$MUNGE_PID"
    # With the old database the new jobs' numbers would be those of old ones.
    rm -rf "$DIR/state" "$DIR"/spool.* "$DIR/mysql"
    [ ! -f /etc/slurm/slurm.conf ] || ! grep -q "$MARK" /etc/slurm/slurm.conf ||
        rm -f /etc/slurm/slurm.conf /etc/slurm/slurmdbd.conf /etc/slurm/gres.conf
}

case "${1:-}" in
install) install ;;
start) start "${2:-accounting}" ;;
stop) stop ;;
kill-node) kill_node "$2" ;;
start-node) start_node "$2" ;;
stop-controller) end "$DIR/slurmctld.pid" ;;
start-controller) slurmctld ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
