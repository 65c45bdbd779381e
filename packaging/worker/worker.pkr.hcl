# A worker's AMI: `packer init packaging/worker && packer build -var k3s_version=… -var … packaging/worker`
packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.0"
    }
  }
}

variable "region" {
  type    = string
  default = "us-east-1"
}

variable "k3s_version" {
  type        = string
  description = "Of the cluster's server, or one minor below: v1.36.1+k3s1"
}

variable "k3s_sha256" {
  type        = string
  description = "Of the program, from sha256sum-amd64.txt of that release"
}

variable "images_sha256" {
  type        = string
  description = "Of k3s-airgap-images-amd64.tar.zst, from the same file"
}

variable "package" {
  type        = string
  description = "smartscale-agent_VERSION_amd64.deb, as packaging/release made it"
}

source "amazon-ebs" "ubuntu" {
  region        = var.region
  instance_type = "t3.small"
  ami_name      = "smartscale-worker-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
  ssh_username  = "ubuntu"
  encrypt_boot  = true
  imds_support  = "v2.0"

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  source_ami_filter {
    filters = {
      name                = "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
    owners      = ["099720109477"] # Canonical
    most_recent = true
  }

  tags = {
    k3s = var.k3s_version
  }
}

build {
  sources = ["source.amazon-ebs.ubuntu"]

  provisioner "file" {
    sources     = ["${path.root}/bake", "${path.root}/k3s-agent.service"]
    destination = "/tmp/"
  }

  provisioner "file" {
    source      = var.package
    destination = "/tmp/smartscale-agent.deb"
  }

  provisioner "shell" {
    environment_vars = [
      "RELEASE=https://github.com/k3s-io/k3s/releases/download/${urlencode(var.k3s_version)}",
      "K3S=${var.k3s_sha256}",
      "IMAGES=${var.images_sha256}",
    ]
    inline_shebang = "/bin/sh -eu"
    inline = [
      "cd /tmp",
      "curl --fail --location --silent --show-error --remote-name-all \"$RELEASE/k3s\" \"$RELEASE/k3s-airgap-images-amd64.tar.zst\"",
      "printf '%s  k3s\\n%s  k3s-airgap-images-amd64.tar.zst\\n' \"$K3S\" \"$IMAGES\" | sha256sum --check",
      "sudo sh bake --k3s k3s --images k3s-airgap-images-amd64.tar.zst --package smartscale-agent.deb",
      "rm -f k3s k3s-airgap-images-amd64.tar.zst bake k3s-agent.service smartscale-agent.deb",
    ]
  }
}
