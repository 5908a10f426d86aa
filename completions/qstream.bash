# Completion of qstream for bash. Installed as share/bash-completion/completions/qstream, or sourced.

# What comes with the program, 'recipes', 'thresholds' or 'expectations': from the folder beside it where there is one.
_qstream_configs() {
    local program folder file found=
    program=$(type -P "${COMP_WORDS[0]}") && program=$(readlink -f "$program")
    for folder in "${program%/*}/../configs" "${program%/*}/../share/qstream/configs"; do
        for file in "$folder"/*.json; do
            [[ -e $file && $file != *.schema.json ]] || continue
            found=1
            file=${file##*/}
            case $file in
            *.thresholds.json) [[ $1 == thresholds ]] && printf '%s\n' "${file%.thresholds.json}" ;;
            *.ppl.json) [[ $1 == expectations ]] && printf '%s\n' "${file%.ppl.json}" ;;
            *) [[ $1 == recipes ]] && printf '%s\n' "${file%.json}" ;;
            esac
        done
        [[ $found ]] && return
    done
    [[ $1 != recipes ]] || printf '%s\n' mistral-medium-3.5-mxfp4 llama-mxfp4 qwen3-moe-mxfp4
}

# A file of such a kind: KIND CURRENT.
_qstream_config() {
    mapfile -t COMPREPLY < <(compgen -W "$(_qstream_configs "$1")" -- "$2"
        compgen -f -X '!*.json' -- "$2"; compgen -d -S / -- "$2")
    compopt -o filenames -o nospace 2>/dev/null
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != */ ]] && compopt +o nospace 2>/dev/null
}

_qstream_quantize() {
    local current=$1 previous=$2
    local options="--recipe --rule --gamma --calibrate --calibrate-ids --calibrate-tokens --calibrate-skip --calibrate-correction
        --shard-size
        --dry-run --part --finish --jobs --disk --keep-source --memory --hash-source --cpu --json --quiet --help"
    # bash takes --rule=ms apart into three words
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $previous in
    --recipe) _qstream_config recipes "$current"; return ;;
    --rule) mapfile -t COMPREPLY < <(compgen -W "mse amax qstream" -- "$current"); return ;;
    --gamma) mapfile -t COMPREPLY < <(compgen -W "none layernorm original" -- "$current"); return ;;
    --cpu) mapfile -t COMPREPLY < <(compgen -W "portable neon avx2 avx512" -- "$current"); return ;;
    --calibrate | --calibrate-ids)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        compopt -o filenames 2>/dev/null
        return
        ;;
    --calibrate-tokens | --calibrate-skip | --calibrate-correction | --shard-size | --part | --jobs | --disk | --memory) return ;;
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        compopt -o filenames 2>/dev/null
    fi
}

# Options and folders of a command: CURRENT PREVIOUS OPTIONS; options with words of their own are the caller's.
_qstream_folder() {
    local current=$1 previous=$2 options=$3
    [[ $current == = ]] && current=
    case $previous in
    --html | --sarif | --junit | --per-token | --text | --tokens | --prompt-file)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        compopt -o filenames 2>/dev/null
        return ;;
    --jobs | --show | --tensors | --memory | --sample | --part | --window | --windows | --stride | --expect | --tolerance | --case | \
        --server | --server-model | --in-flight | --timeout | --retries | --prompt | --max-tokens | --temperature | \
        --top-p | --seed | --device-memory)
        return ;;
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        compopt -o filenames 2>/dev/null
    fi
}

_qstream_inspect() {
    case $2 in
    --by) mapfile -t COMPREPLY < <(compgen -W "role layer format shard" -- "$1"); return ;;
    esac
    _qstream_folder "$1" "$2" "--tensors --by --stats --show --html --json --jobs --quiet --help"
}

_qstream_audit() {
    case $2 in
    --fail-on) mapfile -t COMPREPLY < <(compgen -W "error warning note" -- "$1"); return ;;
    --loaders) mapfile -t COMPREPLY < <(compgen -W "vllm transformers sglang tensorrt-llm" -- "$1"); return ;;
    esac
    _qstream_folder "$1" "$2" "--fail-on --loaders --headers-only --scales --fix --force --json --modules --sarif --junit --html
        --jobs --quiet --help"
}

_qstream_verify() {
    local current=$1 previous=$2
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $previous in
    --rounding) mapfile -t COMPREPLY < <(compgen -W "nearest any" -- "$current"); return ;;
    --rule) mapfile -t COMPREPLY < <(compgen -W "mse amax qstream" -- "$current"); return ;;
    --gamma) mapfile -t COMPREPLY < <(compgen -W "none layernorm original" -- "$current"); return ;;
    --cpu) mapfile -t COMPREPLY < <(compgen -W "portable neon avx2 avx512" -- "$current"); return ;;
    --recipe) _qstream_config recipes "$current"; return ;;
    --thresholds) _qstream_config thresholds "$current"; return ;;
    --min-sqnr | --max-rel)
        mapfile -t COMPREPLY < <(compgen -W "mlp= expert= attention= router= head= embedding= other=" -- "$current")
        compopt -o nospace 2>/dev/null
        return ;;
    esac
    _qstream_folder "$current" "$previous" "--rounding --rule --gamma --recipe --min-sqnr --max-rel --thresholds --sample
        --part --hash --text --tokens --windows --memory --jobs --cpu --json --html --quiet --help"
}

_qstream_ppl() {
    local current=$1 previous=$2
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $previous in
    --windows) mapfile -t COMPREPLY < <(compgen -W "all 5" -- "$current"); return ;;
    --text-join) mapfile -t COMPREPLY < <(compgen -W "raw hf" -- "$current"); return ;;
    --compute) mapfile -t COMPREPLY < <(compgen -W "auto bf16 f32" -- "$current"); return ;;
    --activations) mapfile -t COMPREPLY < <(compgen -W "as-served float" -- "$current"); return ;;
    --kv-cache) mapfile -t COMPREPLY < <(compgen -W "auto bf16 fp8" -- "$current"); return ;;
    --rope-frequencies) mapfile -t COMPREPLY < <(compgen -W "f32 bf16" -- "$current"); return ;;
    --cpu) mapfile -t COMPREPLY < <(compgen -W "portable neon avx2 avx512" -- "$current"); return ;;
    --device) mapfile -t COMPREPLY < <(compgen -W "cpu cuda auto" -- "$current"); return ;;
    --expect-file) _qstream_config expectations "$current"; return ;;
    esac
    _qstream_folder "$current" "$previous" "--text --tokens --window --stride --windows --bos --text-join --compute
        --activations --fused-scales --kv-cache --rope-frequencies --baseline --memory --resident --spill-folder
        --jobs --cpu --device --device-memory --dry-run --expect --tolerance --expect-file --case --update --junit --json
        --html --per-token --server --server-model --in-flight --timeout --retries --quiet --help"
}

_qstream_generate() {
    local current=$1 previous=$2
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $previous in
    --activations) mapfile -t COMPREPLY < <(compgen -W "as-served float" -- "$current"); return ;;
    --kv-cache) mapfile -t COMPREPLY < <(compgen -W "auto bf16 fp8" -- "$current"); return ;;
    --cpu) mapfile -t COMPREPLY < <(compgen -W "portable neon avx2 avx512" -- "$current"); return ;;
    --device) mapfile -t COMPREPLY < <(compgen -W "cpu cuda auto" -- "$current"); return ;;
    esac
    _qstream_folder "$current" "$previous" "--prompt --prompt-file --tokens --bos --no-bos --max-tokens --ignore-eos
        --temperature --top-p --seed --activations --fused-scales --kv-cache --memory --jobs --cpu --device
        --device-memory --dry-run --json --quiet --help"
}

_qstream_fetch() {
    case $2 in
    --revision | --include | --exclude | --connections) return ;;
    --dataset) mapfile -t COMPREPLY < <(compgen -W "wikitext-2" -- "$1"); return ;;
    esac
    _qstream_folder "$1" "$2" "--revision --all --include --exclude --to --dataset --connections --dry-run --json --quiet
        --help"
    [[ $1 == -* || $2 == --to || $2 == = ]] || COMPREPLY=() # a repository is no folder
}

_qstream_push() {
    case $2 in
    --verified)
        mapfile -t COMPREPLY < <(compgen -f -X '!*.json' -- "$1"; compgen -d -S / -- "$1")
        compopt -o filenames 2>/dev/null
        return ;;
    --revision | --message | --connections) return ;;
    esac
    _qstream_folder "$1" "$2" "--source --verified --revision --private --message --create-pr --dry-run --connections --json
        --quiet --help"
}

_qstream_tokenize() { _qstream_folder "$1" "$2" "--text --decode --help"; }

_qstream_report() {
    if [[ $1 == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "--html --help" -- "$1")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$1")
    fi
}

_qstream() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "fetch quantize inspect audit verify push ppl generate tokenize report version help --help --version" -- "$current")
        return
    fi
    previous=${COMP_WORDS[COMP_CWORD - 1]}
    case ${COMP_WORDS[1]} in
    fetch) _qstream_fetch "$current" "$previous" ;;
    quantize) _qstream_quantize "$current" "$previous" ;;
    inspect) _qstream_inspect "$current" "$previous" ;;
    audit) _qstream_audit "$current" "$previous" ;;
    verify) _qstream_verify "$current" "$previous" ;;
    ppl) _qstream_ppl "$current" "$previous" ;;
    generate) _qstream_generate "$current" "$previous" ;;
    tokenize) _qstream_tokenize "$current" "$previous" ;;
    report) _qstream_report "$current" "$previous" ;;
    push) _qstream_push "$current" "$previous" ;;
    help) ((COMP_CWORD == 2)) && mapfile -t COMPREPLY < <(compgen -W "fetch quantize inspect audit verify push ppl generate tokenize report version help" -- "$current") ;;
    esac
    return 0
}

complete -F _qstream qstream
