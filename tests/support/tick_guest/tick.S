/*
 * A guest that cannot be fooled: it counts, and it knows every byte of its memory.
 *
 * Bare metal, 32 bit, started by multiboot (`qemu -kernel tick.elf -append "mib=16 dirty=8"`), on pc and q35,
 * with TCG or KVM. It writes lines to the first serial port:
 *
 *     boot                                 once, at each start or reset
 *     ready PAGES                          the region is filled; ticking begins
 *     tick N DIRTIED CHECKED               N counts 1, 2, 3 … without a gap for as long as this guest lives
 *     BAD page P word I is X not Y tick N  memory is not what was written: lost, stale, doubled or corrupt
 *     BAD disk word I is X not Y tick N    the disk holds another mark than the guest's last one: a second writer's
 *     BAD disk says X tick N               the disk refused: its status and error registers
 *     heard XX                             a byte came in on the serial port (hexadecimal)
 *     scan XX                              a scancode came from the keyboard controller
 *     power                                the power button was pressed; the guest turns itself off (unless power=0)
 *     too small                            the machine has less memory than mib asks; the guest halts
 *
 * Whoever reads the serial output of every host in order of arrival can judge whether the guest had one history: a
 * number missing is a lost tick, a number twice is a second copy running (or one rolled back), silence is downtime.
 *
 * Parameters on the command line, decimal, each with its default:
 *
 *     mib=16     size of the region in MiB, placed at 16 MiB; the machine needs mib + 17 MiB
 *     dirty=8    MiB written a second: the page's old content is verified, then the new generation is written
 *     check=16   MiB only verified a second, by a second cursor that goes round on its own
 *     tick=10    milliseconds from tick to tick, 1 to 50
 *     flush=1    0: never empties the TLB by itself (see below)
 *     power=1    0: ignores the power button
 *     stop=0     after this many ticks it turns itself off; 0: never
 *     reset=0    after this many ticks it resets itself; 0: never
 *     disk=0     every so many ticks it writes its mark on the first IDE disk, having read the last one; 0: never
 *
 * Memory. The page P of generation G holds 1024 words w[0] = P*A ^ G*B ^ C, w[i+1] = w[i]*5 + D. The dirtying cursor
 * goes round the region; pages before it are of generation G, pages from it on of G-1. So the expected content of any
 * page follows from the cursor alone, nothing is stored beside it, and a page that arrived in an older version shows.
 * DIRTIED and CHECKED are pages since boot, modulo 2^32: once CHECKED has grown by PAGES, all was verified.
 *
 * Disk. The first sector of the primary master, written through PIO, holds 128 times the number of the tick that wrote
 * it. The guest remembers that number and reads it back before it writes the next one, so whatever another copy of the
 * guest has written in between shows, and so does a write that was lost.
 *
 * QEMU's TCG, seen with 7.2: when a pass of a migration has collected which pages are dirty, writes through entries
 * of the emulated TLB that are already marked writable are not noticed. A page that is written all the time is then
 * never sent again: every migration of more than two passes goes wrong. An operating system empties the TLB all the
 * time, at every change of process; so does this guest, at every tick and before every page it writes (flush=0: not).
 *
 * Time. Channel 0 of the PIT raises IRQ 0; its counter is part of what QEMU migrates, it does not know the host's
 * clock, and it stands still while the guest is stopped. Late interrupts are not caught up: a tick is one turn of the
 * loop, so N stays continuous on an overloaded host too. Between ticks the CPU halts: an idle guest costs the host
 * next to nothing.
 */
        .intel_syntax noprefix
        .code32

        .set    REGION, 0x1000000
        .set    SEED_PAGE, 0x9E3779B1
        .set    SEED_GENERATION, 0x85EBCA6B
        .set    SEED, 0x5EA7E12A
        .set    STEP, 0x2545F491
        .set    COM1, 0x3F8
        .set    PM1_STATUS, 0x600       # where SeaBIOS puts ACPI's PM block, on pc and on q35
        .set    PM1_CONTROL, 0x604
        .set    POWER_BUTTON, 0x100
        .set    ATA, 0x1F0              # registers of the primary IDE channel
        .set    ATA_READ, 0x20
        .set    ATA_WRITE, 0x30
        .set    ATA_FLUSH, 0xE7
        .set    ATA_BUSY, 0x80
        .set    ATA_REQUESTS, 0x08
        .set    ATA_FAILED, 0x21        # an error, or a fault of the device

        .text
        .align  4
        .long   0x1BADB002, 3, -(0x1BADB002 + 3)        # multiboot: pages aligned, memory sizes told

        .globl  _start
_start:
        mov     esp, offset stack_end
        cld
        mov     ebp, ebx                        # multiboot information
        lgdt    [gdt_pointer]
        ljmp    0x08, offset 1f
1:      mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        call    setup_serial
        mov     esi, offset text_boot
        call    puts
        call    read_parameters
        call    check_memory
        call    fill
        call    setup_interrupts

main:
        cli
        mov     eax, [irqs]
        cmp     eax, [irqs_seen]
        jne     1f
        sti                                     # takes effect after hlt: no interrupt can slip between
        hlt
        jmp     main
1:      mov     [irqs_seen], eax
        sti
        call    flush_tlb
        inc     dword ptr [ticks]
        mov     ecx, [dirty_pages]
2:      jecxz   3f
        push    ecx
        call    dirty_one
        pop     ecx
        dec     ecx
        jmp     2b
3:      mov     ecx, [check_pages]
4:      jecxz   5f
        push    ecx
        call    check_one
        pop     ecx
        dec     ecx
        jmp     4b
5:      call    print_tick
        call    poll_inputs
        call    mark_disk
        mov     eax, [ticks]
        cmp     eax, [stop_after]
        je      power_off
        cmp     eax, [reset_after]
        jne     main
        mov     al, 0xFE                        # the keyboard controller's reset line
        out     0x64, al
6:      hlt
        jmp     6b

# ---- memory --------------------------------------------------------------------------------------------------------

# edi = address and eax = first word of page [esp+4] in generation [esp+8]; the caller's stack is left as it is.
page_start:
        mov     edi, [esp + 4]
        imul    eax, edi, SEED_PAGE
        imul    edx, dword ptr [esp + 8], SEED_GENERATION
        xor     eax, edx
        xor     eax, SEED
        shl     edi, 12
        add     edi, REGION
        ret

# write_page(page, generation)
write_page:
        push    [esp + 8]
        push    [esp + 8]
        call    page_start
        add     esp, 8
        mov     ecx, 1024
1:      mov     [edi], eax
        lea     eax, [eax + eax * 4 + STEP]
        add     edi, 4
        dec     ecx
        jnz     1b
        ret

# verify_page(page, generation): one BAD line for a page, at its first wrong word
verify_page:
        push    [esp + 8]
        push    [esp + 8]
        call    page_start
        add     esp, 8
        mov     ecx, 1024
1:      cmp     [edi], eax
        jne     2f
        lea     eax, [eax + eax * 4 + STEP]
        add     edi, 4
        dec     ecx
        jnz     1b
        ret
2:      push    eax                             # what should be there
        push    [edi]
        mov     eax, 1024
        sub     eax, ecx
        push    eax
        mov     esi, offset text_bad
        call    puts
        mov     eax, [esp + 16]                 # the page: our argument, above 3 words and the return address
        call    put_decimal
        mov     esi, offset text_word
        call    puts
        pop     eax
        call    put_decimal
        mov     esi, offset text_is
        call    puts
        pop     eax
        call    put_hex
        mov     esi, offset text_not
        call    puts
        pop     eax
        call    put_hex
        jmp     bad_at_tick

fill:
        xor     ebx, ebx
1:      push    0
        push    ebx
        call    write_page
        add     esp, 8
        inc     ebx
        cmp     ebx, [pages]
        jb      1b
        mov     dword ptr [generation], 1
        mov     esi, offset text_ready
        call    puts
        mov     eax, [pages]
        call    put_decimal
        jmp     newline

# A change of CR0.WP empties the TLB; without paging it means nothing else.
flush_tlb:
        cmp     dword ptr [flushes], 0
        je      1f
        mov     eax, cr0
        xor     eax, 0x10000
        mov     cr0, eax
1:      ret

dirty_one:
        call    flush_tlb
        mov     eax, [generation]
        dec     eax
        push    eax
        push    [dirty_cursor]
        call    verify_page
        inc     dword ptr [esp + 4]
        call    write_page
        add     esp, 8
        inc     dword ptr [dirtied]
        mov     eax, [dirty_cursor]
        inc     eax
        cmp     eax, [pages]
        jb      1f
        xor     eax, eax
        inc     dword ptr [generation]
1:      mov     [dirty_cursor], eax
        ret

check_one:
        mov     eax, [check_cursor]
        mov     edx, [generation]
        cmp     eax, [dirty_cursor]
        jb      1f
        dec     edx
1:      push    edx
        push    eax
        call    verify_page
        add     esp, 8
        inc     dword ptr [checked]
        mov     eax, [check_cursor]
        inc     eax
        cmp     eax, [pages]
        jb      2f
        xor     eax, eax
2:      mov     [check_cursor], eax
        ret

# ---- disk ----------------------------------------------------------------------------------------------------------

mark_disk:
        cmp     dword ptr [disk_every], 0
        je      9f
        dec     dword ptr [disk_countdown]
        jg      9f
        mov     eax, [disk_every]
        mov     [disk_countdown], eax
        cmp     dword ptr [mark], 0             # nothing of ours is there yet
        je      1f
        mov     al, ATA_READ
        call    disk_command
        jnz     disk_refused
        mov     edi, offset sector
        mov     ecx, 256
        mov     dx, ATA
        rep     insw
        mov     edi, offset sector
        mov     ecx, 128
        mov     eax, [mark]
        repe    scasd
        jne     disk_differs
1:      mov     eax, [ticks]
        mov     [mark], eax
        mov     edi, offset sector
        mov     ecx, 128
        rep     stosd
        mov     al, ATA_WRITE
        call    disk_command
        jnz     disk_refused
        mov     esi, offset sector
        mov     ecx, 256
        mov     dx, ATA
        rep     outsw
        call    disk_idle
        jnz     disk_refused
        mov     dx, ATA + 7
        mov     al, ATA_FLUSH
        out     dx, al
        call    disk_idle
        jnz     disk_refused
9:      ret

disk_command:                                   # al for sector 0; ZF once it asks for the data
        push    eax
        mov     dx, ATA + 2
        mov     al, 1                           # one sector
        out     dx, al
        xor     al, al
        inc     dx
        out     dx, al
        inc     dx
        out     dx, al
        inc     dx
        out     dx, al
        inc     dx
        mov     al, 0xE0                        # the master, by block address
        out     dx, al
        inc     dx
        pop     eax
        out     dx, al
        call    disk_idle
        jnz     1f
        in      al, dx
        and     al, ATA_REQUESTS
        cmp     al, ATA_REQUESTS
1:      ret

disk_idle:                                      # ZF if all went well
        mov     dx, ATA + 7
1:      in      al, dx
        test    al, ATA_BUSY
        jnz     1b
        test    al, ATA_FAILED
        ret

disk_refused:
        mov     esi, offset text_disk_says
        call    puts
        mov     dx, ATA + 7
        in      al, dx
        movzx   eax, al
        push    eax
        mov     dx, ATA + 1
        in      al, dx
        pop     edx
        mov     ah, dl
        call    put_hex
        jmp     bad_at_tick

disk_differs:
        push    dword ptr [edi - 4]
        mov     eax, 127
        sub     eax, ecx
        push    eax
        mov     esi, offset text_disk_word
        call    puts
        pop     eax
        call    put_decimal
        mov     esi, offset text_is
        call    puts
        pop     eax
        call    put_decimal
        mov     esi, offset text_not
        call    puts
        mov     eax, [mark]
        call    put_decimal
bad_at_tick:
        mov     esi, offset text_tick
        call    puts
        mov     eax, [ticks]
        call    put_decimal
        jmp     newline

# ---- input and power -----------------------------------------------------------------------------------------------

poll_inputs:
        mov     dx, COM1 + 5
        in      al, dx
        cmp     al, 0xFF                        # no such port in this machine
        je      1f
        test    al, 1
        jz      1f
        mov     dx, COM1
        in      al, dx
        mov     esi, offset text_heard
        call    print_byte
1:      in      al, 0x64
        cmp     al, 0xFF
        je      2f
        test    al, 1
        jz      2f
        in      al, 0x60
        mov     esi, offset text_scan
        call    print_byte
2:      cmp     dword ptr [obeys_power], 0
        je      3f
        mov     dx, PM1_STATUS
        in      ax, dx
        cmp     ax, 0xFFFF
        je      3f
        test    ax, POWER_BUTTON
        jz      3f
        mov     ax, POWER_BUTTON                # writing the bit back clears it
        out     dx, ax
        mov     esi, offset text_power
        call    puts
        jmp     power_off
3:      ret

power_off:
        mov     dx, PM1_CONTROL
        mov     ax, 0x2000                      # SLP_EN with the type QEMU knows as S5
        out     dx, ax
1:      hlt
        jmp     1b

# ---- output --------------------------------------------------------------------------------------------------------

print_tick:
        mov     esi, offset text_tick + 1
        call    puts
        mov     eax, [ticks]
        call    put_decimal
        mov     al, ' '
        call    putc
        mov     eax, [dirtied]
        call    put_decimal
        mov     al, ' '
        call    putc
        mov     eax, [checked]
        call    put_decimal
newline:
        mov     al, '\n'
putc:
        push    edx
        push    eax
        mov     dx, COM1 + 5
1:      in      al, dx
        test    al, 0x20
        jz      1b
        pop     eax
        mov     dx, COM1
        out     dx, al
        pop     edx
        ret

print_byte:                                     # al after the text at esi
        push    eax
        call    puts
        pop     eax
        push    eax
        shr     al, 4
        call    put_digit
        pop     eax
        call    put_digit
        jmp     newline

puts:
        lodsb
        test    al, al
        jz      1f
        call    putc
        jmp     puts
1:      ret

put_hex:
        mov     ecx, 8
1:      rol     eax, 4
        push    eax
        call    put_digit
        pop     eax
        dec     ecx
        jnz     1b
        ret

put_digit:
        and     al, 15
        add     al, '0'
        cmp     al, '9'
        jbe     putc
        add     al, 'a' - '0' - 10
        jmp     putc

put_decimal:
        mov     ebx, 10
        xor     ecx, ecx
1:      xor     edx, edx
        div     ebx
        push    edx
        inc     ecx
        test    eax, eax
        jnz     1b
2:      pop     eax
        add     al, '0'
        call    putc
        dec     ecx
        jnz     2b
        ret

# ---- set-up --------------------------------------------------------------------------------------------------------

setup_serial:
        mov     dx, COM1 + 1
        xor     al, al                          # no interrupts: we poll
        out     dx, al
        mov     dx, COM1 + 3
        mov     al, 0x80
        out     dx, al
        mov     dx, COM1
        mov     al, 1                           # 115200 baud
        out     dx, al
        mov     dx, COM1 + 1
        xor     al, al
        out     dx, al
        mov     dx, COM1 + 3
        mov     al, 3                           # 8n1
        out     dx, al
        mov     dx, COM1 + 2
        mov     al, 7                           # the queues on: a burst of input is not lost
        out     dx, al
        ret

read_parameters:
        test    dword ptr [ebp], 4
        jz      9f
        mov     esi, [ebp + 16]
1:      lodsb
        test    al, al
        jz      9f
        cmp     al, ' '
        jne     1b
        mov     ebx, offset parameters
2:      mov     edi, [ebx]                      # name, with its '='
        test    edi, edi
        jz      1b
        push    esi
3:      mov     al, [edi]
        test    al, al
        jz      4f
        cmp     al, [esi]
        jne     5f
        inc     edi
        inc     esi
        jmp     3b
5:      pop     esi
        add     ebx, 8
        jmp     2b
4:      pop     eax
        xor     ecx, ecx
6:      movzx   eax, byte ptr [esi]
        sub     eax, '0'
        cmp     eax, 9
        ja      7f
        imul    ecx, ecx, 10
        add     ecx, eax
        inc     esi
        jmp     6b
7:      mov     edi, [ebx + 4]
        mov     [edi], ecx
        jmp     1b
9:      mov     eax, [region_mib]
        shl     eax, 8
        mov     [pages], eax
        mov     eax, [dirty_rate]
        call    to_pages
        mov     [dirty_pages], eax
        mov     eax, [check_rate]
        call    to_pages
        mov     [check_pages], eax
        ret

to_pages:                                       # MiB a second -> pages a tick, rounded up
        shl     eax, 8
        mul     dword ptr [tick_ms]
        add     eax, 999
        mov     ecx, 1000
        xor     edx, edx
        div     ecx
        ret

check_memory:
        test    dword ptr [ebp], 1
        jz      1f
        mov     eax, [ebp + 8]                  # KiB above 1 MiB
        shr     eax, 10
        sub     eax, 15
        jl      2f
        cmp     eax, [region_mib]
        jl      2f
        cmp     dword ptr [region_mib], 0
        je      2f
1:      ret
2:      mov     esi, offset text_small
        call    puts
        cli
3:      hlt
        jmp     3b

setup_interrupts:
        mov     eax, offset ignore              # 256 gates: whatever comes is acknowledged
        mov     edi, offset idt
        mov     ecx, 256
        call    set_gates
        mov     eax, offset timer
        mov     edi, offset idt + 0x20 * 8
        mov     ecx, 1
        call    set_gates
        lidt    [idt_pointer]
        mov     al, 0x11                        # both PICs: vectors from 0x20, only IRQ 0 open
        out     0x20, al
        out     0xA0, al
        mov     al, 0x20
        out     0x21, al
        mov     al, 0x28
        out     0xA1, al
        mov     al, 4
        out     0x21, al
        mov     al, 2
        out     0xA1, al
        mov     al, 1
        out     0x21, al
        out     0xA1, al
        mov     al, 0xFE
        out     0x21, al
        mov     al, 0xFF
        out     0xA1, al
        mov     al, 0x34                        # channel 0, both bytes, rate generator
        out     0x43, al
        mov     eax, [tick_ms]
        imul    eax, eax, 1193
        out     0x40, al
        mov     al, ah
        out     0x40, al
        mov     dx, PM1_STATUS + 2              # without its enable bit the button is never seen
        mov     ax, POWER_BUTTON
        out     dx, ax
        sti
        ret

set_gates:                                      # ecx gates from edi to eax
        mov     edx, eax
        and     edx, 0xFFFF0000
        or      edx, 0x8E00
        movzx   eax, ax
        or      eax, 0x00080000
1:      mov     [edi], eax
        mov     [edi + 4], edx
        add     edi, 8
        dec     ecx
        jnz     1b
        ret

timer:
        push    eax
        inc     dword ptr [irqs]
        mov     al, 0x20
        out     0x20, al
        pop     eax
        iretd

ignore:
        push    eax
        mov     al, 0x20
        out     0x20, al
        out     0xA0, al
        pop     eax
        iretd

# ---- data ----------------------------------------------------------------------------------------------------------

        .data
        .align  8
gdt:    .quad   0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF
gdt_pointer:
        .word   23
        .long   gdt
idt_pointer:
        .word   256 * 8 - 1
        .long   idt
        .align  4
region_mib:     .long   16
dirty_rate:     .long   8
check_rate:     .long   16
tick_ms:        .long   10
flushes:        .long   1
obeys_power:    .long   1
stop_after:     .long   0
reset_after:    .long   0
disk_every:     .long   0
parameters:
        .long   name_mib, region_mib, name_dirty, dirty_rate, name_check, check_rate, name_tick, tick_ms
        .long   name_flush, flushes, name_power, obeys_power, name_stop, stop_after
        .long   name_reset, reset_after, name_disk, disk_every, 0
name_mib:       .asciz  "mib="
name_dirty:     .asciz  "dirty="
name_check:     .asciz  "check="
name_tick:      .asciz  "tick="
name_flush:     .asciz  "flush="
name_power:     .asciz  "power="
name_stop:      .asciz  "stop="
name_reset:     .asciz  "reset="
name_disk:      .asciz  "disk="
text_boot:      .asciz  "boot\n"
text_ready:     .asciz  "ready "
text_tick:      .asciz  " tick "
text_bad:       .asciz  "BAD page "
text_disk_says: .asciz  "BAD disk says "
text_disk_word: .asciz  "BAD disk word "
text_word:      .asciz  " word "
text_is:        .asciz  " is "
text_not:       .asciz  " not "
text_heard:     .asciz  "heard "
text_scan:      .asciz  "scan "
text_power:     .asciz  "power\n"
text_small:     .asciz  "too small\n"

        .bss
        .align  16
idt:            .skip   256 * 8
stack:          .skip   4096
stack_end:
pages:          .skip   4
dirty_pages:    .skip   4
check_pages:    .skip   4
dirty_cursor:   .skip   4
check_cursor:   .skip   4
generation:     .skip   4
dirtied:        .skip   4
checked:        .skip   4
ticks:          .skip   4
irqs:           .skip   4
irqs_seen:      .skip   4
disk_countdown: .skip   4
mark:           .skip   4
sector:         .skip   512
