#!/usr/bin/env bash
# Starts a Slurm of one node on this machine, from Debian's packages slurm-wlm and munge, and stops it when its standard
# input ends. Usage: start.sh FOLDER, a new one, which takes its configuration, state and logs. Prints "ready". Needs to
# be root, as the daemons do, and touches neither a Slurm nor a munge that is installed as a service.
set -euo pipefail
folder=$1
mkdir -p "$folder"/{state,spool,logs,munge}
chmod 700 "$folder/munge"
host=$(hostname -s)
ports=($(python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))'))

cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=10
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
MinJobAge=3600
RebootProgram=/bin/false
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/logs/slurmctld.log
SlurmdLogFile=$folder/logs/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
echo 'CgroupPlugin=cgroup/v1' > "$folder/cgroup.conf"
export SLURM_CONF=$folder/slurm.conf

stop() {
  for name in slurmctld slurmd munged; do
    if [ -e "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || true; fi
  done
}
trap stop EXIT
head -c 1024 /dev/urandom > "$folder/munge/key"
chmod 400 "$folder/munge/key"
PATH=$PATH:/usr/sbin
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
slurmctld
slurmd
for _ in $(seq 60); do
  case $(sinfo --noheader --format=%T 2>/dev/null) in idle | mixed | allocated) echo ready; break ;; esac
  sleep 1
done
cat > /dev/null
