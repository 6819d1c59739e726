# Entry lists: what relocate_new_kernel makes of each shape of list.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# stubs:       relocate_new_kernel
# may change:  registers stack context swap

.include "claims.inc"
.include "stubs.inc"

# On x86-64 a plain call copies pages, with RELOCATE_SWAP it exchanges them; i386 exchanges always.
.if BITS == 64
.set EXCHANGE, RELOCATE_SWAP
.else
.set EXCHANGE, 0
.endif

# ---- Moving --------------------------------------------------------------------------------------------------------

claim an_empty_list_moves_nothing, "context"
    call_relocate $IND_DONE, $empty_moved, $EXCHANGE
    never
empty_moved:
    page_holds TARGET_PAGE, TARGET_PAGE
    page_holds SWAP_PAGE, SWAP_PAGE
holds

claim a_page_and_its_destination_are_exchanged, "source target"
    call_relocate $(one_page+IND_INDIRECTION), $exchanged, $EXCHANGE
    never
exchanged:
    page_holds TARGET_PAGE, SOURCE_PAGE
    page_holds SOURCE_PAGE, TARGET_PAGE
    page_holds SWAP_PAGE, SOURCE_PAGE
holds

.if BITS == 64
claim a_plain_call_copies_and_leaves_the_source_and_the_swap_page, "target"
    call_relocate $(one_page+IND_INDIRECTION), $copied, $0
    never
copied:
    page_holds TARGET_PAGE, SOURCE_PAGE
    page_holds SOURCE_PAGE, SOURCE_PAGE
    page_holds SWAP_PAGE, SWAP_PAGE
holds

claim caches_are_written_back_before_the_pages_move, "target", , "executes wbinvd before target"
    call_relocate $(one_page+IND_INDIRECTION), $copied, $RELOCATE_CACHE_INCOHERENT
    never

claim coherent_caches_are_left_alone, "target", , "never executes wbinvd"
    call_relocate $(one_page+IND_INDIRECTION), $copied, $0
    never
.endif

claim a_call_that_preserves_exchanges, "source target"
    call_relocate $(one_page+IND_INDIRECTION), $exchanged_for_peer, $RELOCATE_PRESERVE_CONTEXT
    never
exchanged_for_peer:                             # its stack is on the swap page
    page_holds TARGET_PAGE, SOURCE_PAGE
    page_holds SOURCE_PAGE, TARGET_PAGE
holds

# A list with two parts, as for a peer whose state is not kept: first what is there is backed up, then it is copied over.
claim pages_are_copied_when_asked_although_somebody_comes_back, "target3 *relocate.pa_inverse_map"
    call_relocate $(backup_and_load+IND_INDIRECTION), $peer_on_copies, $(RELOCATE_PRESERVE_CONTEXT|RELOCATE_COPY)
    page_holds TARGET_PAGE, TARGET_PAGE
    page_holds TARGET3_PAGE, TARGET_PAGE
    page_holds SOURCE_PAGE, SOURCE_PAGE
holds
peer_on_copies:
    page_holds TARGET3_PAGE, TARGET_PAGE
    page_holds TARGET_PAGE, SOURCE_PAGE
    page_holds SOURCE_PAGE, SOURCE_PAGE
    movl    relocate.pa_inverse_map, %ecx
    movl    $(inverse+IND_INDIRECTION), (%ecx)  # what the loader fills
    ret

claim what_was_exchanged_is_back_when_the_peer_returns
    call_relocate $(every_kind+IND_INDIRECTION), $peer_looks, $RELOCATE_PRESERVE_CONTEXT
    page_holds TARGET_PAGE, TARGET_PAGE
    page_holds SOURCE_PAGE, SOURCE_PAGE
holds
peer_looks:
    page_holds TARGET_PAGE, SOURCE_PAGE
    page_holds TARGET2_PAGE, SOURCE2_PAGE
    page_holds TARGET3_PAGE, SOURCE3_PAGE
    ret

claim what_the_peer_made_of_its_pages_is_kept_in_the_sources, "source+4"
    call_relocate $(one_page+IND_INDIRECTION), $peer_writes, $RELOCATE_PRESERVE_CONTEXT
    equall  $0x77777777, SOURCE_PAGE
    equall  $TARGET_PAGE, TARGET_PAGE
holds
peer_writes:
    movl    $0x77777777, TARGET_PAGE
    ret

claim the_cursor_goes_on_to_the_page_after, "source source2 source3 target target2 target3"
    call_relocate $(three_pages+IND_INDIRECTION), $three_moved, $EXCHANGE
    never
three_moved:
    page_holds TARGET_PAGE, SOURCE3_PAGE
    page_holds TARGET2_PAGE, SOURCE_PAGE
    page_holds TARGET3_PAGE, SOURCE2_PAGE
    page_holds SOURCE3_PAGE, TARGET_PAGE
holds

claim each_destination_sets_the_cursor_anew, "source source2 target target3"
    call_relocate $(two_segments+IND_INDIRECTION), $segments_moved, $EXCHANGE
    never
segments_moved:
    page_holds TARGET3_PAGE, SOURCE_PAGE
    page_holds TARGET_PAGE, SOURCE2_PAGE
holds

claim of_two_destinations_in_a_row_the_second_counts, "source target3"
    call_relocate $(two_destinations+IND_INDIRECTION), $second_counts, $EXCHANGE
    never
second_counts:
    page_holds TARGET3_PAGE, SOURCE_PAGE
holds

claim a_page_that_is_its_own_destination_stays_as_it_is, "source target2"
    call_relocate $(own_source+IND_INDIRECTION), $stayed, $EXCHANGE
    never
stayed:
    page_holds TARGET_PAGE, TARGET_PAGE
    page_holds TARGET2_PAGE, SOURCE_PAGE
    page_holds SOURCE_PAGE, TARGET2_PAGE
holds

.set NULL_PAGE, 0
claim without_a_destination_the_cursor_is_page_0, "null source"
    call_relocate $(no_destination+IND_INDIRECTION), $null_moved, $EXCHANGE
    never
null_moved:
    page_holds 0, SOURCE_PAGE
    equall  $0, SOURCE_PAGE
holds

# ---- Where the entries are -----------------------------------------------------------------------------------------

claim indirection_pages_can_be_chained, "source source2 source3 target target2 target3"
    call_relocate $(chain+IND_INDIRECTION), $chained, $EXCHANGE
    never
chained:
    page_holds TARGET_PAGE, SOURCE_PAGE
    page_holds TARGET2_PAGE, SOURCE2_PAGE
    page_holds TARGET3_PAGE, SOURCE3_PAGE
holds

claim an_indirection_page_may_be_full_to_its_last_entry, "source target"
    call_relocate $(full_page+IND_INDIRECTION), $exchanged, $EXCHANGE
    never

claim spare_bits_of_the_head_mean_nothing, "source target"
    call_relocate $(one_page+IND_INDIRECTION+0xff0), $exchanged, $EXCHANGE
    never

# ---- What an entry says --------------------------------------------------------------------------------------------

claim entries_without_a_flag_are_ignored, "source source2 target target2"
    call_relocate $(ignored+IND_INDIRECTION), $not_disturbed, $EXCHANGE
    never
not_disturbed:
    page_holds TARGET_PAGE, SOURCE_PAGE
    page_holds TARGET2_PAGE, SOURCE2_PAGE
holds

claim bits_between_the_flags_and_the_page_mean_nothing, "source target"
    call_relocate $(spare_bits+IND_INDIRECTION), $exchanged, $EXCHANGE
    never

claim destination_counts_before_every_other_flag, "source target"
    call_relocate $(destination_first+IND_INDIRECTION), $exchanged, $EXCHANGE
    never

claim indirection_counts_before_done_and_source, "source target"
    call_relocate $(indirection_second+IND_INDIRECTION), $exchanged, $EXCHANGE
    never

claim done_counts_before_source, "source target"
    call_relocate $(done_third+IND_INDIRECTION), $exchanged, $EXCHANGE
    never

claim behind_the_end_nothing_is_read, "source target"
    call_relocate $(behind_the_end+IND_INDIRECTION), $exchanged, $EXCHANGE
    never

# ---- Lists ---------------------------------------------------------------------------------------------------------

    .balign 8, 0
.if BITS == 64
relocate.pa_inverse_map:        .quad 0
.else
.set relocate.pa_inverse_map, relocate.cp_pa_inverse_map
relocate.cp_pa_inverse_map:     .quad 0
.endif

list backup_and_load
    to      TARGET3_PAGE
    from    TARGET_PAGE
    to      TARGET_PAGE
    from    SOURCE_PAGE
    done

list inverse
    to      TARGET_PAGE
    from    TARGET3_PAGE
    done

list one_page
    to      TARGET_PAGE
    from    SOURCE_PAGE
    done

list three_pages
    to      TARGET_PAGE
    from    SOURCE3_PAGE
    from    SOURCE_PAGE
    from    SOURCE2_PAGE
    done

list two_segments
    to      TARGET3_PAGE
    from    SOURCE_PAGE
    to      TARGET_PAGE
    from    SOURCE2_PAGE
    done

list two_destinations
    to      TARGET_PAGE
    to      TARGET3_PAGE
    from    SOURCE_PAGE
    done

list own_source
    to      TARGET_PAGE
    from    TARGET_PAGE
    from    SOURCE_PAGE
    done

list no_destination
    from    SOURCE_PAGE
    done

list chain
    to      TARGET_PAGE
    from    SOURCE_PAGE
    more    chain_second
    from    SOURCE3_PAGE                        # not reached
list chain_second
    more    chain_third
list chain_third
    from    SOURCE2_PAGE
    from    SOURCE3_PAGE
    done

list ignored
    entry   0
    to      TARGET_PAGE
    entry   0
    entry   SOURCE3_PAGE
    entry   SOURCE3_PAGE+0xff0
    from    SOURCE_PAGE
    entry   0x10
    from    SOURCE2_PAGE
    entry   0
    done

list spare_bits
    to      TARGET_PAGE+0xff0
    from    SOURCE_PAGE+0xff0
    entry   IND_DONE+0xfff0

list destination_first
    to      TARGET_PAGE+IND_INDIRECTION+IND_DONE+IND_SOURCE
    from    SOURCE_PAGE
    done

list indirection_second
    to      TARGET_PAGE
    more    rest_of_second+IND_DONE+IND_SOURCE
list rest_of_second
    from    SOURCE_PAGE
    done

list done_third
    to      TARGET_PAGE
    from    SOURCE_PAGE
    entry   SOURCE2_PAGE+IND_DONE+IND_SOURCE
    from    SOURCE3_PAGE

list behind_the_end
    to      TARGET_PAGE
    from    SOURCE_PAGE
    done
    to      TARGET2_PAGE
    from    SOURCE2_PAGE

list every_kind
    to      TARGET_PAGE
    entry   0
    from    SOURCE_PAGE
    more    rest_of_every_kind
list rest_of_every_kind
    to      TARGET3_PAGE
    from    SOURCE3_PAGE
    to      TARGET2_PAGE
    from    SOURCE2_PAGE
    done

list full_page
    to      TARGET_PAGE
    from    SOURCE_PAGE
    .fill   PAGE_SIZE - 3 * (BITS / 8), 1, 0
    done
