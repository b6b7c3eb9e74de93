//! A process on a machine that is no node (`diolkos join`): one workload, reached through a tunnel on the machine's own
//! address, whose calls to services are captured by their addresses alone.
use crate::attach::Attacher;
use crate::identity::Identities;
use crate::netns::{self, Netns};
use crate::origin::Origin;
use crate::pods::{AttachError, Pod, PodSockets};
use crate::redirect::{self, CapturePorts, RedirectError, Rules};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use xds::attach::PodAttachment;

/// What the proxy must know of the process.
#[derive(Clone, Debug)]
pub struct HostWorkload {
    /// Resource name of its workload, `host/NAMESPACE/NAME`.
    pub workload: String,
    /// Namespace of its identity.
    pub namespace: String,
    /// ServiceAccount of its identity.
    pub service_account: String,
    /// This machine's address, where tunnels arrive.
    pub address: IpAddr,
    /// Port of the process, on loopback. No other port of the machine is reached through the tunnel.
    pub port: u16,
    /// Networks whose connections are captured: the services'. Needs CAP_NET_ADMIN; none: nothing is captured.
    pub capture: Vec<String>,
}

impl Attacher {
    /// Serves a process of this machine. Blocks for as long as `nft` takes.
    pub fn attach_host(&self, host: &HostWorkload) -> Result<(), AttachError> {
        let config = &self.shared().config;
        let ports = config.ports;
        let sockets: io::Result<Vec<PodSockets>> = (0..self.workers()).map(|_| open_sockets(host, ports)).collect();
        let sockets = sockets.map_err(AttachError::Listen)?;
        if !host.capture.is_empty() {
            rules(host, self).install(&Netns::Own)?;
        }
        let attachment = PodAttachment {
            uid: host.workload.clone(),
            namespace: host.namespace.clone(),
            name: host.service_account.clone(),
            service_account: host.service_account.clone(),
            netns: String::new(),
            ips: vec![host.address],
            node_ip: host.address,
            probe_ports: Vec::new(),
            ports: vec![host.port],
        };
        let pod = Arc::new(pod(attachment, ports, &self.shared().identities));
        self.shared().pods.insert(pod.clone());
        self.serve_sockets(&pod, sockets);
        tracing::info!(workload = host.workload, address = %host.address, port = host.port, "joined process is served");
        Ok(())
    }

    /// Lets go of the machine's connections: without the proxy they would lead nowhere.
    pub fn detach_host(&self, host: &HostWorkload) -> Result<(), RedirectError> {
        self.detach(&host.workload);
        if host.capture.is_empty() { Ok(()) } else { redirect::remove(&Netns::Own) }
    }
}

/// The joined process that an attachment without a network namespace describes.
pub(crate) fn pod(attachment: PodAttachment, ports: CapturePorts, identities: &Arc<Identities>) -> Pod {
    let identity = identities.acquire(&attachment.namespace, &attachment.service_account);
    let (namespace, name) = (&attachment.namespace, &attachment.name);
    let origin = Origin::new(Netns::Own, identity, namespace, name, attachment.ips.clone());
    Pod::new(attachment, Arc::new(origin), ports).on_loopback()
}

fn rules<'a>(host: &'a HostWorkload, attacher: &'a Attacher) -> Rules<'a> {
    let config = &attacher.shared().config;
    Rules {
        ports: config.ports,
        dns: &config.dns_vips,
        // The machine's resolver is not ours to configure: its questions are answered wherever it sends them.
        all_dns: true,
        probes: None,
        only_to: &host.capture,
        inbound: false,
    }
}

fn open_sockets(host: &HostWorkload, ports: CapturePorts) -> io::Result<PodSockets> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let captures = !host.capture.is_empty();
    let listen = |address| netns::listen(address).map(|listener| vec![listener]);
    Ok(PodSockets {
        outbound: if captures { listen(local(ports.outbound))? } else { Vec::new() },
        inbound: Vec::new(),
        hbone: listen(SocketAddr::new(host.address, ports.hbone))?,
        dns_tcp: if captures { listen(local(ports.dns))? } else { Vec::new() },
        dns_udp: if captures { vec![netns::bind_udp(local(ports.dns))?] } else { Vec::new() },
    })
}
