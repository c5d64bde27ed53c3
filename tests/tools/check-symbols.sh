#!/bin/bash
# What an archive exports carries its component's prefix; what is shared only between the files of one room of it
# carries the room's own.
set -u
declare -A prefix=([base]='base_|opt_|err_' [kernels]='kn_|ref_|cpu_'
	[engine]='eng_|arch_|attention_|ffn$|forward$|hparams_|model_|rope_|qz_|runner_|sampler_|sched_|sreq_|tok_|gr_'
	[engine_http]='eng_|exchange_|gen_|handle_|http_|route_|watch_' [imgtools]='img_' [lazyimages]='flip_|node_|fs_|slots_|tree_|objects?_|reads_|layers?_|request_|peer_|kept_|etcd_'
	[gpu_shim32]='gk_|gpu_|_Z|(block|grid)Dim|(block|thread)Idx' [gpu_shim64]='gk_|gpu_|_Z|(block|grid)Dim|(block|thread)Idx'
	[agent]='ag_|gate_|know_|md_|term_|flow_|history_|sys_|kb_|mcp_|tool_')
status=0

for archive in "$BUILD_DIR"/lib/lib*.a; do
	name=$(basename "$archive" .a)
	name=${name#lib}
	if [[ -z ${prefix[$name]:-} ]]; then
		echo "$archive: no prefix is known for it (tests/tools/check-symbols.sh)"
		status=1
		continue
	fi
	# Sanitizers add names that begin with two underscores.
	nm --defined-only --extern-only "$archive" | awk 'NF == 3 { print $3 }' | grep -vE "^(${prefix[$name]}|__)" |
		sed "s,^,$archive: no prefix ${prefix[$name]}: ," | grep . && status=1
done
exit $status
