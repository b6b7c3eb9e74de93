//! The sandbox image: a program that does nothing but hold a pod's namespaces open.
//!
//! It is assembled here, because no registry may be reachable and a compiler for the target may not be there: about 100 bytes
//! of code in a static ELF file with one loadable segment. The program:
//!
//! 1. blocks SIGINT, SIGTERM and SIGCHLD. It must not rely on default actions: as process 1 of a PID namespace it has none. A
//!    *blocked* signal is kept for process 1 too, so waiting for it works;
//! 2. waits for one of them (`rt_sigtimedwait` without a time-out);
//! 3. on SIGCHLD reaps every child that has ended (with `shareProcessNamespace` it adopts the orphans of the whole pod) and
//!    waits again; on SIGINT or SIGTERM exits with 0.

use super::build::{BuildError, ImageBuilder};

/// Name of the sandbox image. `.invalid` is reserved (RFC 2606): nobody can ever serve another image under this name.
pub const PAUSE_IMAGE: &str = "diolkos.invalid/pause:1";

/// The sandbox image for this machine's architecture.
///
/// # Errors
/// Never for the architectures that the platform is built for.
pub fn pause_image() -> Result<ImageBuilder, BuildError> {
    let elf = match std::env::consts::ARCH {
        "aarch64" => elf(EM_AARCH64, &aarch64()),
        _ => elf(EM_X86_64, &x86_64()),
    };
    Ok(ImageBuilder::new(PAUSE_IMAGE)?.bytes("/pause", 0o755, elf).entrypoint(["/pause"]).user("65535:65535"))
}

const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// Signal numbers are the same on both architectures; signal `n` is bit `n - 1`.
const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;
const SIGCHLD: u8 = 17;
const SIGNALS: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);

/// A static executable: file header, one program header (whole file, read and execute), code.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64;
    let mut out = Vec::with_capacity(size as usize);
    out.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // 64 bit, little endian, version 1, System V
    out.extend(2u16.to_le_bytes()); // e_type: ET_EXEC
    out.extend(machine.to_le_bytes());
    out.extend(1u32.to_le_bytes()); // e_version
    out.extend((BASE + HEADERS).to_le_bytes()); // e_entry: right after the headers
    out.extend(64u64.to_le_bytes()); // e_phoff
    out.extend(0u64.to_le_bytes()); // e_shoff: no sections
    out.extend(0u32.to_le_bytes()); // e_flags
    for half in [64u16, 56, 1, 64, 0, 0] {
        out.extend(half.to_le_bytes()); // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    }
    out.extend(1u32.to_le_bytes()); // p_type: PT_LOAD
    out.extend(5u32.to_le_bytes()); // p_flags: read, execute
    for word in [0, BASE, BASE, size, size, 0x1_0000] {
        out.extend(u64::to_le_bytes(word)); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align (64 KiB pages exist on arm64)
    }
    out.extend(code);
    out
}

/// System calls: rt_sigprocmask 14, rt_sigtimedwait 128, wait4 61, exit 60; arguments in rdi, rsi, rdx, r10.
fn x86_64() -> Vec<u8> {
    let mut code = Vec::new();
    // 0x00 start: rt_sigprocmask(SIG_BLOCK = 0, &set, NULL, 8)
    code.extend([0x31, 0xff]); //                                xor  edi, edi
    code.extend([0x48, 0x8d, 0x35, 0x4f, 0, 0, 0]); //           lea  rsi, [rip + 0x4f]   set is at 0x58
    code.extend([0x31, 0xd2, 0x6a, 8, 0x41, 0x5a]); //           xor  edx, edx; push 8; pop r10
    code.extend([0x6a, 14, 0x58, 0x0f, 0x05]); //                push 14; pop rax; syscall
    // 0x14 wait: rt_sigtimedwait(&set, NULL, NULL, 8)
    code.extend([0x48, 0x8d, 0x3d, 0x3d, 0, 0, 0]); //           lea  rdi, [rip + 0x3d]
    code.extend([0x31, 0xf6, 0x31, 0xd2, 0x6a, 8, 0x41, 0x5a]); // xor esi, esi; xor edx, edx; push 8; pop r10
    code.extend([0xb8, 128, 0, 0, 0, 0x0f, 0x05]); //            mov  eax, 128; syscall
    code.extend([0x83, 0xf8, SIGCHLD, 0x74, 0x0c]); //           cmp  eax, SIGCHLD; je reap
    code.extend([0x83, 0xf8, SIGTERM, 0x74, 0x1d]); //           cmp  eax, SIGTERM; je exit
    code.extend([0x83, 0xf8, SIGINT, 0x74, 0x18]); //            cmp  eax, SIGINT;  je exit
    code.extend([0xeb, 0xd9]); //                                jmp  wait
    // 0x3b reap: wait4(-1, NULL, WNOHANG, NULL) until nobody is left
    code.extend([0x6a, 0xff, 0x5f, 0x31, 0xf6]); //              push -1; pop rdi; xor esi, esi
    code.extend([0x6a, 1, 0x5a, 0x45, 0x31, 0xd2]); //           push 1; pop rdx; xor r10d, r10d
    code.extend([0x6a, 61, 0x58, 0x0f, 0x05]); //                push 61; pop rax; syscall
    code.extend([0x85, 0xc0, 0x7f, 0xec, 0xeb, 0xc3]); //        test eax, eax; jg reap; jmp wait
    // 0x51 exit: exit(0)
    code.extend([0x31, 0xff, 0x6a, 60, 0x58, 0x0f, 0x05]); //    xor  edi, edi; push 60; pop rax; syscall
    // 0x58 set
    debug_assert_eq!(code.len(), 0x58);
    code.extend(SIGNALS.to_le_bytes());
    code
}

/// System calls: rt_sigprocmask 135, rt_sigtimedwait 137, wait4 260, exit 93; number in x8, arguments in x0..x3.
fn aarch64() -> Vec<u8> {
    const SET: i32 = 0x78;
    const SVC: u32 = 0xd400_0001;
    const EQ: u32 = 0;
    const NE: u32 = 1;
    const GT: u32 = 12;
    let movz = |register: u32, value: u32| 0xd280_0000 | value << 5 | register;
    let cmp_w0 = |value: u8| 0x7100_001f | u32::from(value) << 10;
    let branch_if =
        |condition: u32, at: i32, to: i32| 0x5400_0000 | (((to - at) / 4) as u32 & 0x7_ffff) << 5 | condition;
    // adr: the low two bits of the distance stand apart; every distance here is a multiple of four.
    let adr = |register: u32, at: i32| 0x1000_0000 | (((SET - at) / 4) as u32 & 0x7_ffff) << 5 | register;
    let words = [
        movz(0, 0),
        adr(1, 0x04),
        movz(2, 0),
        movz(3, 8),
        movz(8, 135),
        SVC, // 0x00 rt_sigprocmask(SIG_BLOCK, &set, NULL, 8)
        adr(0, 0x18),
        movz(1, 0),
        movz(2, 0),
        movz(3, 8),
        movz(8, 137),
        SVC, // 0x18 wait: rt_sigtimedwait(&set, NULL, NULL, 8)
        cmp_w0(SIGCHLD),
        branch_if(EQ, 0x34, 0x54), //                          0x30 to reap
        cmp_w0(SIGTERM),
        branch_if(EQ, 0x3c, 0x48), //                          0x38 to exit
        cmp_w0(SIGINT),
        branch_if(NE, 0x44, 0x18), //                           0x40 to wait, or fall into exit
        movz(0, 0),
        movz(8, 93),
        SVC, //                                        0x48 exit: exit(0)
        0x9280_0000,
        movz(1, 0),
        movz(2, 1),
        movz(3, 0),
        movz(8, 260),
        SVC, //  0x54 reap: wait4(-1, NULL, WNOHANG, NULL)
        cmp_w0(0),
        branch_if(GT, 0x70, 0x54), //                                0x6c somebody ended: again
        0x1400_0000 | (((0x18 - 0x74) / 4) as u32 & 0x3ff_ffff), //             0x74 b wait
    ];
    let mut code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    debug_assert_eq!(code.len() as i32, SET);
    code.extend(SIGNALS.to_le_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program of this architecture: it must wait, and leave with 0 when told to.
    #[test]
    fn the_program_waits_and_leaves_on_sigterm() {
        use std::os::unix::fs::PermissionsExt;
        if std::env::consts::ARCH != "x86_64" {
            println!("SKIPPED the_program_waits_and_leaves_on_sigterm: no x86_64 machine");
            return;
        }
        let path = std::env::temp_dir().join(format!("diolkos-pause-{}", std::process::id()));
        std::fs::write(&path, elf(EM_X86_64, &x86_64())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
            let mut child = std::process::Command::new(&path).spawn().unwrap();
            let pid = nix::unistd::Pid::from_raw(child.id() as i32);
            // The only call in which it can sleep is the one that waits for signals.
            while !std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("State:\tS") {
                std::thread::yield_now();
            }
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCHLD).unwrap();
            assert_eq!(child.try_wait().unwrap(), None, "a SIGCHLD without a child is nothing");
            nix::sys::signal::kill(pid, signal).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn both_programs_are_small() {
        assert_eq!(elf(EM_X86_64, &x86_64()).len(), 216);
        assert_eq!(elf(EM_AARCH64, &aarch64()).len(), 248);
    }
}
