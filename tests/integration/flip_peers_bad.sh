#!/bin/bash
# Ten nodes behind links of 100 Mbit/s, three of which are none: they send noise, lie, stall, say "wait" for ever. How long the
# seven others take, and how many questions they asked in vain, is printed; that all have every byte, that the bad ones are left out
# and nothing wrong was given on, is what is tested.
. "$(dirname "$0")/flip/lib.sh"
. "$(dirname "$0")/flip/peers.sh"
. "$(dirname "$0")/flip/herd.sh"
begin flip-peers-bad docker-registry skopeo
net_up 10 100mbit

herd_ready 20

# ---- Three of ten are none -----------------------------------------------------------------------------------------------

members=$(members_list 10)
for kinds in ${KINDS:-good,good,good noise,lie,cut stall,stall,stall wait,error,lie}; do
	kinds=${kinds//,/ } bad=() k=8
	for how in $kinds; do
		if [[ $how == good ]]; then
			start_node $k $quiet
		else
			start_bad $k $how
			bad+=($spawned)
		fi
		k=$((k + 1))
	done
	for i in {1..7}; do
		start_node $i $quiet
	done
	before=$(out_of_registry)
	if [[ $kinds == good* ]]; then
		herd {1..10}
		echo "10 good ones: all have everything after $took ms"
	else
		herd {1..7}
		bytes=$((($(out_of_registry) - before) * 100 / packed))
		for k in 8 9 10; do
			found=0
			for i in {1..7}; do
				was_left_out $i "$(member $k)" && found=$((found + 1))
			done
			((found > 0)) || fail "$kinds: nobody has left out $(member $k)"
		done
		failures=$(failures_of {1..7})
		echo "of 10, three are $kinds: the others have everything after $took ms, $failures questions in vain, $bytes % of the image left the registry"
	fi
	for pid in ${bad[@]+"${bad[@]}"}; do
		end_child $pid
	done
	end_nodes
done
