"""The part of EC2's service model (API version 2016-11-15) that awsha speaks, in the form that botocore reads.

botocore's own model of EC2 is 3.7 MB of JSON: 0.15 s and 16 MiB in every process. This table is what awsha needs of it,
and a reply is parsed no further than what is read here. tests/adapters/test_aws_model.py holds it against botocore's.

Members are written `Name/nameOnTheWire:Shape`. Without a wire name it is the member's name, without a shape String.
"""

from __future__ import annotations

from typing import Any

API_VERSION = "2016-11-15"

# operation: (request shape, reply shape or "" when the reply is only a `return true`)
OPERATIONS: dict[str, tuple[str, str]] = {
    "AssignPrivateIpAddresses": ("AssignRequest", "AssignResult"),
    "AttachVolume": ("AttachVolumeRequest", "Attachment"),
    "CreateTags": ("CreateTagsRequest", ""),
    "DeleteTags": ("DeleteTagsRequest", ""),
    "DescribeInstanceTypes": ("DescribeTypesRequest", "DescribeTypesResult"),
    "DescribeInstances": ("DescribeInstancesRequest", "DescribeInstancesResult"),
    "DescribeNetworkInterfaces": ("DescribeInterfacesRequest", "DescribeInterfacesResult"),
    "DescribeSecurityGroups": ("DescribeGroupsRequest", "DescribeGroupsResult"),
    "DescribeSubnets": ("DescribeSubnetsRequest", "DescribeSubnetsResult"),
    "DescribeVolumes": ("DescribeVolumesRequest", "DescribeVolumesResult"),
    "DetachVolume": ("DetachVolumeRequest", "Attachment"),
    "StopInstances": ("StopInstancesRequest", "StopInstancesResult"),
    "UnassignPrivateIpAddresses": ("UnassignRequest", ""),
}

_STRUCTURES: dict[str, str] = {
    "AssignRequest": "AllowReassignment/allowReassignment:Boolean NetworkInterfaceId/networkInterfaceId "
    "PrivateIpAddresses/privateIpAddress:Addresses",
    "AssignResult": "AssignedPrivateIpAddresses/assignedPrivateIpAddressesSet:PrivateIps",
    "AttachVolumeRequest": "Device InstanceId VolumeId DryRun/dryRun:Boolean",
    "Attachment": "DeleteOnTermination/deleteOnTermination:Boolean Device/device InstanceId/instanceId State/status "
    "VolumeId/volumeId",
    "CreateTagsRequest": "DryRun/dryRun:Boolean Resources/ResourceId:Strings Tags/Tag:Tags",
    "DeleteTagsRequest": "DryRun/dryRun:Boolean Resources/resourceId:Strings Tags/tag:Tags",
    "DescribeGroupsRequest": "GroupIds/GroupId:Strings NextToken DryRun/dryRun:Boolean",
    "DescribeGroupsResult": "NextToken/nextToken SecurityGroups/securityGroupInfo:SecurityGroups",
    "DescribeInstancesRequest": "Filters/Filter:Filters InstanceIds/InstanceId:Strings NextToken/nextToken "
    "DryRun/dryRun:Boolean",
    "DescribeInstancesResult": "NextToken/nextToken Reservations/reservationSet:Reservations",
    "DescribeInterfacesRequest": "Filters/filter:Filters NetworkInterfaceIds/NetworkInterfaceId:Strings NextToken "
    "DryRun/dryRun:Boolean",
    "DescribeInterfacesResult": "NetworkInterfaces/networkInterfaceSet:NetworkInterfaces NextToken/nextToken",
    "DescribeSubnetsRequest": "SubnetIds/SubnetId:Strings NextToken DryRun/dryRun:Boolean",
    "DescribeSubnetsResult": "NextToken/nextToken Subnets/subnetSet:Subnets",
    "DescribeTypesRequest": "InstanceTypes/InstanceType:Types NextToken DryRun:Boolean",
    "DescribeTypesResult": "InstanceTypes/instanceTypeSet:TypeInfos NextToken/nextToken",
    "DescribeVolumesRequest": "Filters/Filter:Filters VolumeIds/VolumeId:Strings NextToken/nextToken "
    "DryRun/dryRun:Boolean",
    "DescribeVolumesResult": "NextToken/nextToken Volumes/volumeSet:Volumes",
    "DetachVolumeRequest": "Force:Boolean InstanceId VolumeId DryRun/dryRun:Boolean",
    "Filter": "Name Values/Value:Strings",
    "Group": "GroupId/groupId",
    "GroupPair": "GroupId/groupId",
    "Instance": "BlockDeviceMappings/blockDeviceMapping:Mappings InstanceId/instanceId InstanceType/instanceType "
    "MetadataOptions/metadataOptions:MetadataOptions NetworkInterfaces/networkInterfaceSet:Interfaces "
    "Placement/placement:Placement PrivateIpAddress/privateIpAddress RootDeviceName/rootDeviceName "
    "State/instanceState:State SubnetId/subnetId Tags/tagSet:Tags VpcId/vpcId",
    "Interface": "Groups/groupSet:Groups MacAddress/macAddress NetworkInterfaceId/networkInterfaceId "
    "PrivateIpAddress/privateIpAddress PrivateIpAddresses/privateIpAddressesSet:PrivateIps SubnetId/subnetId "
    "VpcId/vpcId",
    "InterfaceAttachment": "InstanceId/instanceId",
    "IpPermission": "FromPort/fromPort:Integer IpProtocol/ipProtocol IpRanges/ipRanges:IpRanges "
    "PrefixListIds/prefixListIds:PrefixLists UserIdGroupPairs/groups:GroupPairs",
    "IpRange": "CidrIp/cidrIp",
    "Mapping": "DeviceName/deviceName",
    "MetadataOptions": "HttpEndpoint/httpEndpoint HttpPutResponseHopLimit/httpPutResponseHopLimit:Integer",
    "NetworkInfo": "Ipv4AddressesPerInterface/ipv4AddressesPerInterface:Integer",
    "NetworkInterface": "Attachment/attachment:InterfaceAttachment Groups/groupSet:Groups MacAddress/macAddress "
    "NetworkInterfaceId/networkInterfaceId PrivateIpAddress/privateIpAddress "
    "PrivateIpAddresses/privateIpAddressesSet:PrivateIps SubnetId/subnetId VpcId/vpcId",
    "Placement": "AvailabilityZone/availabilityZone",
    "PrefixList": "PrefixListId/prefixListId",
    "PrivateIp": "PrivateIpAddress/privateIpAddress",
    "Reservation": "Instances/instancesSet:Instances OwnerId/ownerId",
    "SecurityGroup": "GroupId/groupId IpPermissions/ipPermissions:IpPermissions "
    "IpPermissionsEgress/ipPermissionsEgress:IpPermissions",
    "State": "Name/name",
    "StateChange": "CurrentState/currentState:State InstanceId/instanceId",
    "StopInstancesRequest": "Force/force:Boolean InstanceIds/InstanceId:Strings SkipOsShutdown:Boolean "
    "DryRun/dryRun:Boolean",
    "StopInstancesResult": "StoppingInstances/instancesSet:StateChanges",
    "Subnet": "CidrBlock/cidrBlock SubnetId/subnetId",
    "Tag": "Key/key Value/value",
    "TypeInfo": "InstanceType/instanceType NetworkInfo/networkInfo:NetworkInfo",
    "UnassignRequest": "NetworkInterfaceId/networkInterfaceId PrivateIpAddresses/privateIpAddress:Addresses",
    "Volume": "Attachments/attachmentSet:Attachments AvailabilityZone/availabilityZone "
    "Encrypted/encrypted:Boolean KmsKeyId/kmsKeyId MultiAttachEnabled/multiAttachEnabled:Boolean Size/size:Integer "
    "State/status Tags/tagSet:Tags VolumeId/volumeId VolumeType/volumeType",
}

# EC2's lists are flat in a request, and in a reply every element is an <item>.
_LISTS: dict[str, str] = {
    "Addresses": "String",
    "Attachments": "Attachment",
    "Filters": "Filter",
    "GroupPairs": "GroupPair",
    "Groups": "Group",
    "Instances": "Instance",
    "Interfaces": "Interface",
    "IpPermissions": "IpPermission",
    "IpRanges": "IpRange",
    "Mappings": "Mapping",
    "NetworkInterfaces": "NetworkInterface",
    "PrefixLists": "PrefixList",
    "PrivateIps": "PrivateIp",
    "Reservations": "Reservation",
    "SecurityGroups": "SecurityGroup",
    "StateChanges": "StateChange",
    "Strings": "String",
    "Subnets": "Subnet",
    "Tags": "Tag",
    "TypeInfos": "TypeInfo",
    "Types": "String",
    "Volumes": "Volume",
}


def service_model() -> dict[str, Any]:
    """The table as a botocore service model (the format of botocore/data/*/service-2.json)."""
    shapes: dict[str, Any] = {name: {"type": name.lower()} for name in ("String", "Boolean", "Integer")}
    shapes |= {name: {"type": "list", "member": _at("item", of)} for name, of in _LISTS.items()}
    shapes |= {name: {"type": "structure", "members": _members(text)} for name, text in _STRUCTURES.items()}
    return {
        "version": "2.0",
        "metadata": {
            "apiVersion": API_VERSION,
            "endpointPrefix": "ec2",
            "protocol": "ec2",
            "protocols": ["ec2"],
            "serviceAbbreviation": "Amazon EC2",
            "serviceFullName": "Amazon Elastic Compute Cloud",
            "serviceId": "EC2",
            "signatureVersion": "v4",
            "uid": f"ec2-{API_VERSION}",
            "xmlNamespace": f"http://ec2.amazonaws.com/doc/{API_VERSION}",
            "auth": ["aws.auth#sigv4"],
        },
        "operations": {name: _operation(name, *shapes_of) for name, shapes_of in OPERATIONS.items()},
        "shapes": shapes,
    }


def _operation(name: str, request: str, reply: str) -> dict[str, Any]:
    http = {"method": "POST", "requestUri": "/"}
    operation: dict[str, Any] = {"name": name, "http": http, "input": {"shape": request}}
    return operation | ({"output": {"shape": reply}} if reply else {})


def _members(text: str) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for word in text.split():
        names, _, shape = word.partition(":")
        name, _, wire = names.partition("/")
        members[name] = _at(wire, shape or "String")
    return members


def _at(wire: str, shape: str) -> dict[str, str]:
    return {"shape": shape} | ({"locationName": wire} if wire else {})
