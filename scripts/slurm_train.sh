#!/usr/bin/env bash
# Slurm job: train on one or several nodes, stop before the time limit, requeue, resume.
# Submit it from the root of the repository. Flags are passed to train.py:
#   sbatch --nodes 2 --gpus-per-node 4 scripts/slurm_train.sh --dataset pascal --backbone xception
#
#SBATCH --job-name=deeplab
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@180
#
# 180 seconds before the time limit, Slurm sends SIGTERM to every process of the job step (not to this script, which would
# need --signal=B:TERM): torchrun, the training processes and their data workers. The training processes agree on a step,
# write the checkpoint and exit 143; data workers ignore the signal; torchrun sends it again to the training processes and
# kills them after TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds. SIGUSR1 writes a checkpoint at any time; torchrun would end on it
# and therefore ignores it here:
#   scancel --signal=USR1 JOBID
set -euo pipefail
here=${SLURM_SUBMIT_DIR:-$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)}  # Slurm runs a copy of this file
cd "$here"
PYTHON=${PYTHON:-python3}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
gpus=${SLURM_GPUS_ON_NODE:-0}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((${SLURM_CPUS_PER_TASK:-1} / (gpus > 0 ? gpus : 1)))}

# On each node, torchrun runs in the background, so that this shell can record the SIGTERM that it also receives
# shellcheck disable=SC2016
node='
trap "" USR1
stopped=0
trap "stopped=1" TERM
"$@" &
child=$!
while true; do
    wait "$child"
    status=$?
    kill -0 "$child" 2>/dev/null || break  # else the signal interrupted wait
done
if [ "$stopped" = 1 ] && [ "$status" != 0 ]; then exit 143; fi
exit "$status"'

status=0
srun --kill-on-bad-exit=0 bash -c "$node" node \
    "$PYTHON" -m torch.distributed.run --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$((gpus > 0 ? gpus : 1))" \
    --max-restarts 3 --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv-backend c10d \
    --rdzv-endpoint "$head:$port" train.py --resume auto "$@" || status=$?
if [ "$status" = 143 ]; then
    echo "stopped before the time limit: requeueing"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
