# bash completion for tersor

_tersor() {
  local cur prev verb i
  cur=${COMP_WORDS[COMP_CWORD]}
  prev=${COMP_WORDS[COMP_CWORD-1]}
  verb=
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      compress|pack|decompress|verify|inspect|analyze|calibrate|kv-send|kv-recv|bench|tune|doctor) verb=${COMP_WORDS[i]}; break ;;
    esac
  done

  case $prev in
    --codec)
      if [[ $verb == bench ]]; then
        COMPREPLY=($(compgen -W 'rank top16 raw zstd-1 zstd-3 lz4' -- "$cur"))
      elif [[ $verb == kv-send ]]; then
        COMPREPLY=($(compgen -W 'auto rank top16 raw' -- "$cur"))
      else
        COMPREPLY=($(compgen -W 'rank top16 raw' -- "$cur"))
      fi
      return ;;
    --inline-escapes) COMPREPLY=($(compgen -W 'auto 24 40 56 72 88' -- "$cur")); return ;;
    --others) COMPREPLY=($(compgen -W 'raw rank top16' -- "$cur")); return ;;
    --device) COMPREPLY=($(compgen -W 'cpu cuda:0' -- "$cur")); return ;;
    --dtype) COMPREPLY=($(compgen -W 'bf16 f16 e4m3 e5m2' -- "$cur")); return ;;
    --layout) COMPREPLY=($(compgen -W 'packed tcatbe' -- "$cur")); return ;;
    --shapes)
      COMPREPLY=($(compgen -W 'targets llama-3.1-8b llama-3.1-70b llama-3.1-405b qwen3-8b qwen3-14b qwen3-32b' -- "$cur"))
      return ;;
    --data) COMPREPLY=($(compgen -W 'normal lognormal-columns row-scaled input' -- "$cur")); return ;;
    --chunk-size) COMPREPLY=($(compgen -W '8192' -- "$cur")); return ;;
    -T|--threads) COMPREPLY=($(compgen -W '1 2 4 8 16 32' -- "$cur")); return ;;
    --transport) COMPREPLY=($(compgen -W 'tcp tls ucx' -- "$cur")); return ;;
    --to|--listen|--metrics) compopt +o default 2>/dev/null; COMPREPLY=($(compgen -A hostname -S : -- "$cur")); return ;;
    --include|--exclude|--timeout|--max-size|--size|--repeats|--seconds|--rows|--hidden-dim|--warmup|--iters|--kv-tokens|--kv-layers|--commit|--n|--split-k|--plan) return ;;
  esac

  if [[ $cur == -* ]]; then
    local flags='--help'
    local output='--json --quiet --verbose'
    local filter='--include --exclude'
    local transfer="--psk-file --tenant-file --timeout --transport --tls-cert --tls-key --tls-ca --threads $output"
    local transform="--output --force --rm --dry-run --verify --threads --no-mmap $output"
    case $verb in
      '') flags+=' --version' ;;
      compress) flags+=" $transform --codec --codebook $filter" ;;
      pack) flags+=" $transform --layout --inline-escapes --others $filter" ;;
      decompress) flags+=" $transform" ;;
      verify) flags+=" --against --threads --no-mmap $output" ;;
      inspect) flags+=" $filter --no-mmap $output" ;;
      analyze) flags+=" --report --force $filter --threads --no-mmap $output" ;;
      calibrate) flags+=" --output --force $filter --threads --no-mmap $output" ;;
      kv-send) flags+=" --to --codec $transfer --no-mmap" ;;
      kv-recv) flags+=" --listen --output --once --force --max-size --metrics $transfer" ;;
      bench)
        flags+=' --device --threads --input --synthetic --calibration-input --calibrate-on-input --codec --size'
        flags+=' --chunk-size --repeats --seconds --rows --hidden-dim --data --dtype --warmup --iters --graph --pages --kv-tokens'
        flags+=' --kv-layers --output --plot --commit --peer-json --json --quiet'
        flags+=' --shapes --n --layout --no-graph --pdl --unpack --split-k --plan --plans' ;;
      tune) flags+=' --device --shapes --n --layout --dtype --input --repeats --threads --output --force --json --quiet' ;;
      doctor) flags+=' --json' ;;
    esac
    COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    return
  fi

  if [[ -z $verb ]]; then
    COMPREPLY=($(compgen -W 'compress pack decompress verify inspect analyze calibrate kv-send kv-recv bench tune doctor' -- "$cur"))
    return
  fi
  if [[ $verb == bench && $prev == bench ]]; then
    COMPREPLY=($(compgen -W 'codec gemm' -- "$cur"))
    return
  fi
  compopt -o filenames 2>/dev/null
  local IFS=$'\n'
  COMPREPLY=($(compgen -f -- "$cur"))
}

complete -F _tersor tersor
